"""A proxy in front of one server that can take it away or freeze it, and bring it back."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.processes import free_port

_CHUNK_BYTES = 32 * 1024


class SwitchedProxy:
    """Passes bytes on. The server behind it never notices what its clients see."""

    def __init__(self, upstream_port: int, bytes_per_second: float | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        #: Set when an outage that was ordered with ``strike`` has begun.
        self.struck = threading.Event()
        self._upstream_port = upstream_port
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._sockets: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._left: int | None = None
        self._fault: Callable[[], None] = self.take_away
        self.bring_back()

    def take_away(self) -> None:
        """Refuse connections and cut those that there are, as after a kill."""
        with self._lock:
            listener, self._listener = self._listener, None
            sockets, self._sockets = self._sockets, set()
        for each in sockets | ({listener} if listener else set()):
            _shut(each)

    def freeze(self) -> None:
        """Accept connections and pass nothing on, as a server that was stopped."""
        self._flowing.clear()

    def bring_back(self) -> None:
        """End an outage, and forget one that was ordered and has not begun."""
        with self._lock:
            self._left = None
        self._flowing.set()
        if self._listener is None:
            self._listener = listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def strike(self, fault: Callable[[], None], after_bytes: int) -> None:
        """Begin an outage once so many bytes more have passed in either direction."""
        with self._lock:
            self.struck.clear()
            self._fault, self._left = fault, after_bytes

    def close(self) -> None:
        """End everything."""
        self._left = None
        self._flowing.set()
        self.take_away()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream_port))
            except OSError:
                return
            with self._lock:
                self._sockets |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                self._flowing.wait()
                target.sendall(data)
                self._count(len(data))
                if self._bytes_per_second:
                    time.sleep(len(data) / self._bytes_per_second)
        with self._lock:
            self._sockets -= {source, target}
        for each in (source, target):
            _shut(each)

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            if self._left is None:
                return
            self._left -= size_bytes
            if self._left > 0:
                return
            self._left = None
        self._fault()
        self.struck.set()


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        sock.close()


@contextmanager
def switched_proxy(url: str, bytes_per_second: float | None = None) -> Iterator[SwitchedProxy]:
    """Run a proxy for the server at an address, for the length of a block."""
    proxy = SwitchedProxy(int(url.rpartition(":")[2].strip("/")), bytes_per_second)
    try:
        yield proxy
    finally:
        proxy.close()
