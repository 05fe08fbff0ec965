"""Sends a file, whole or in part, from disk to a socket in flat memory, as faults would have it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from embedded.hub.faults import Fault, FaultKind
from embedded.hub.stats import Stats

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Manner:
    """How a body is sent, after all the faults that apply to it."""

    stop_after: int | None = None
    hang_after: int | None = None
    bytes_per_second: int | None = None
    corrupt: bool = False
    ignore_range: bool = False
    extra_bytes: int = 0

    @classmethod
    def of(cls, faults: list[Fault]) -> "Manner":
        """Join the faults; of two of a kind the later one counts."""
        manner = cls()
        for fault in faults:
            match fault.kind:
                case FaultKind.CUT:
                    manner = replace(manner, stop_after=fault.after_bytes)
                case FaultKind.HANG:
                    manner = replace(manner, hang_after=fault.after_bytes)
                case FaultKind.THROTTLE:
                    manner = replace(manner, bytes_per_second=fault.bytes_per_second)
                case FaultKind.RESIZE:
                    manner = replace(manner, extra_bytes=fault.extra_bytes or 0)
                case FaultKind.CORRUPT:
                    manner = replace(manner, corrupt=True)
                case FaultKind.IGNORE_RANGE:
                    manner = replace(manner, ignore_range=True)
        return manner

    @property
    def limit(self) -> int | None:
        """After how many bytes the body ends too early."""
        limits = [limit for limit in (self.stop_after, self.hang_after) if limit is not None]
        return min(limits, default=None)


class Transfer(Response):
    """The body of a file; ends early when the client leaves."""

    def __init__(
        self,
        path: Path,
        span: range,
        headers: dict[str, str],
        *,
        status_code: int,
        manner: Manner,
        counted: tuple[Stats, str],
    ) -> None:
        super().__init__(status_code=status_code, headers=headers)
        self._path = path
        self._span = span
        self._manner = manner
        self._stats, self._name = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer the request."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        async with _watched(receive) as gone:
            await send(start)
            await self._send_body(send, gone)

    async def _send_body(self, send: Send, gone: asyncio.Event) -> None:
        limit = self._manner.limit
        early = limit is not None and limit < len(self._span)
        total = limit if early and limit is not None else len(self._span)
        pace = _Pace(self._manner.bytes_per_second)
        sent = 0
        with self._path.open("rb", buffering=0) as file:
            while sent < total and not gone.is_set():
                size = min(pace.chunk_bytes, total - sent)
                chunk = await run_in_threadpool(_read, file.fileno(), size, self._span.start + sent)
                if self._manner.corrupt and sent == 0:
                    chunk = bytes([chunk[0] ^ 0xFF]) + chunk[1:]
                last = not early and sent + size == total
                await send({"type": "http.response.body", "body": chunk, "more_body": not last})
                if gone.is_set():
                    return  # the server drops what is sent to a closed connection
                sent += size
                self._stats.add_sent(self._name, size)
                if not last:
                    await pace.wait(sent, gone)
        if total == 0 and not early:
            await send({"type": "http.response.body"})
        if early and self._manner.hang_after == limit:
            await gone.wait()


class _Pace:
    """Keeps a transfer at or under a rate."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        # Twenty steps a second keep a slow transfer smooth.
        self.chunk_bytes = (
            min(_CHUNK_BYTES, max(1, bytes_per_second // 20)) if bytes_per_second else _CHUNK_BYTES
        )

    async def wait(self, sent: int, gone: asyncio.Event) -> None:
        if self._rate is not None:
            delay = self._start + sent / self._rate - self._loop.time()
            with suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), max(0.0, delay))


def _read(descriptor: int, size: int, offset: int) -> bytes:
    """Read exactly that much; zeros stand for what lies past the end of the file."""
    chunk = os.pread(descriptor, size, offset)
    while 0 < len(chunk) < size and (
        more := os.pread(descriptor, size - len(chunk), offset + len(chunk))
    ):
        chunk += more
    return chunk.ljust(size, b"\0")


@asynccontextmanager
async def _watched(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """Set an event when the client leaves."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


async def wait_until_gone(receive: Receive) -> None:
    """Answer nothing for as long as the client stays."""
    async with _watched(receive) as gone:
        await gone.wait()
