"""A proxy that can let its connections go dead without a word, as a firewall or a failover does."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.processes import free_port

_CHUNK = 64 * 1024


class TcpProxy:
    """Passes bytes on between clients and one port of this machine."""

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._frozen: list[tuple[socket.socket, socket.socket]] = []
        self._ended = threading.Event()
        self._loses_answer = False

    def freeze(self) -> int:
        """Pass nothing on any longer, nor an end, for the connections of now; return their count.

        Later ones are as good as ever.
        """
        self._frozen, self._pairs = [*self._frozen, *self._pairs], []
        return len(self._frozen)

    def lose_next_answer(self) -> None:
        """Let the next connection on which the server answers break before the answer arrives."""
        self._loses_answer = True

    def lead_to(self, upstream: int) -> None:
        """Take later connections to another port; the present ones stay where they are."""
        self._upstream = upstream

    def run(self) -> None:
        """Pass bytes on until closed; the body of a thread."""
        while not self._ended.is_set():
            routes = {a: b for pair in self._pairs for a, b in (pair, pair[::-1])}
            for ready in select.select([self._listener, *routes], [], [], 0.05)[0]:
                if ready is self._listener:
                    self._accept()
                elif self._loses_answer and any(ready is server for _, server in self._pairs):
                    self._loses_answer = False
                    self._drop(ready)
                elif not _passed_on(ready, routes[ready]):
                    self._drop(ready)

    def close(self) -> None:
        """End all connections."""
        self._ended.set()
        for each in (self._listener, *(s for pair in self._pairs + self._frozen for s in pair)):
            each.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._pairs.append((client, socket.create_connection(("127.0.0.1", self._upstream))))

    def _drop(self, ended: socket.socket) -> None:
        for pair in [pair for pair in self._pairs if ended in pair]:
            self._pairs.remove(pair)
            for each in pair:
                each.close()


def _passed_on(source: socket.socket, target: socket.socket) -> bool:
    with suppress(OSError):
        if data := source.recv(_CHUNK):
            target.sendall(data)
            return True
    return False


@contextmanager
def tcp_proxy(upstream: int) -> Iterator[TcpProxy]:
    """Run a proxy for the length of a block."""
    proxy = TcpProxy(upstream)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield proxy
    finally:
        proxy._ended.set()
        thread.join(10)
        proxy.close()
