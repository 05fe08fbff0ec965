"""A proxy that passes bytes on, and lets single exchanges fail in the ways that networks know."""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tests.processes import free_port

T = TypeVar("T")

_REQUEST = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE) \S+ HTTP/1\.1\r\n")
_CHUNK_BYTES = 65_536
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\n\r\n{}"
)


class WireFault(StrEnum):
    """What goes wrong with an exchange."""

    #: 503, and the server hears nothing.
    STATUS = "status"
    #: The connection breaks in the answer's body.
    CUT = "cut"
    #: It breaks after the first line of the answer's head; http.client takes that for all of it.
    BEHEAD = "behead"
    #: No answer, and the server hears nothing, until the fault is lifted.
    HANG = "hang"
    #: The server does the work, and its answer is lost.
    DROP_ANSWER = "drop_answer"


@dataclass
class _Order:
    fault: WireFault
    pattern: re.Pattern[bytes]
    left: int


class FaultyProxy:
    """Stands before one server; one fault at a time."""

    def __init__(self, upstream_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        #: Exchanges that failed, by fault.
        self.hits: dict[WireFault, int] = dict.fromkeys(WireFault, 0)
        self._upstream_port = upstream_port
        self._loop = loop
        self._order: _Order | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._hung: set[asyncio.StreamWriter] = set()

    def fail(self, fault: WireFault, times: int, pattern: str = ".") -> None:
        """Let the next exchanges fail whose request line a pattern fits."""
        self._order = _Order(fault, re.compile(pattern.encode()), times)

    def lift(self) -> None:
        """Pass everything on again; what hangs is cut off, as by a server's restart."""
        self._order = None
        self._loop.call_soon_threadsafe(self._cut_off)

    def take(self, request_line: bytes) -> WireFault | None:
        """Return the fault that is meant for a request."""
        order = self._order
        if order is None or not order.left or not order.pattern.search(request_line):
            return None
        order.left -= 1
        self.hits[order.fault] += 1
        return order.fault

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        self._open.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            self._open.discard(writer)
            _abort(writer)
            return
        exchange = _Exchange(self, writer, up_writer)
        pumps = [
            asyncio.create_task(exchange.requests(reader)),
            asyncio.create_task(exchange.answers(up_reader)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._hung.discard(writer)
            self._open.discard(writer)
            for each in (writer, up_writer):
                each.close()
            closing = (each.wait_closed() for each in (writer, up_writer))
            await asyncio.gather(*closing, return_exceptions=True)

    def hang(self, writer: asyncio.StreamWriter) -> None:
        """Keep a connection silent until the fault is lifted."""
        self._hung.add(writer)

    def abort(self) -> None:
        """Break every connection."""
        for writer in self._open:
            _abort(writer)

    def _cut_off(self) -> None:
        for writer in self._hung:
            _abort(writer)


class _Exchange:
    """The two directions of a connection; clients here send no request before the last answer."""

    def __init__(
        self, proxy: FaultyProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._answered = True
        self._fault: WireFault | None = None

    async def requests(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self._answered and (head := _REQUEST.match(data)):
                self._answered, self._fault = False, self._proxy.take(head[0])
            if self._fault is WireFault.STATUS:
                await self._refuse(reader)
                return
            if self._fault is WireFault.HANG:
                self._proxy.hang(self._client)
                continue
            self._server.write(data)
            await self._server.drain()

    async def answers(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            self._answered = True
            if self._fault is WireFault.DROP_ANSWER:
                _abort(self._client)
                return
            kept = self._kept(data)
            if kept is not None:
                self._client.write(data[:kept])
                await self._client.drain()
                self._client.close()
                return
            self._client.write(data)
            await self._client.drain()

    def _kept(self, data: bytes) -> int | None:
        """Return after how many of these bytes the connection is to break, if it is."""
        if self._fault is WireFault.BEHEAD:
            return data.index(b"\n") + 1
        body = data.index(b"\r\n\r\n") + 4 if data.startswith(b"HTTP/") else 0
        if self._fault is WireFault.CUT and body < len(data):
            return (body + len(data)) // 2
        return None

    async def _refuse(self, reader: asyncio.StreamReader) -> None:
        self._client.write(_REFUSAL)
        await self._client.drain()
        # Closed with bytes unread, the connection would be reset before the answer is read.
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while await reader.read(_CHUNK_BYTES):
                    pass


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection the rude way: a reset, and nothing that was not sent yet."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def proxies(*upstream_ports: int) -> Iterator[list[FaultyProxy]]:
    """Run a proxy before each of these ports, on one thread, for the length of a block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxies")
    thread.start()

    def run(work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    started = [FaultyProxy(port, loop) for port in upstream_ports]
    servers = [run(asyncio.start_server(each.serve, "127.0.0.1", each.port)) for each in started]
    try:
        yield started
    finally:
        run(_close(servers, started))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(servers: list[asyncio.Server], started: list[FaultyProxy]) -> None:
    """End the servers and the connections that are still open."""
    for server in servers:
        server.close()
    for proxy in started:
        proxy.abort()
    serving = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*serving, return_exceptions=True)
