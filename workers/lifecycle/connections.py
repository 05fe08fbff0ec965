"""Connections of one download, that can be cut from another thread."""

import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from threading import Lock
from types import TracebackType
from typing import Any, Self

import httpx


class Connections:
    """An HTTP client whose transfers can be cut while they wait for the network."""

    def __init__(
        self,
        headers: Mapping[str, str],
        timeout_seconds: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._client = httpx.Client(
            # A size and a digest are those of the file as it is, not of a compressed one.
            # httpx drops Authorization when a redirect leads to another host.
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=timeout_seconds,
            follow_redirects=True,
            transport=transport,
        )
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._is_cut = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def stream(self, url: str, offset: int) -> AbstractContextManager[httpx.Response]:
        """Ask for a file from a byte on."""
        return self._client.stream(
            "GET",
            url,
            headers={"Range": f"bytes={offset}-"} if offset else {},
            extensions={"trace": self._note},
        )

    def cut(self) -> None:
        """Let every transfer, also one that waits for an answer, fail at once; for good."""
        with self._lock:
            self._is_cut = True
            for sock in self._sockets:
                _shut(sock)

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember new connections: httpcore's trace hook is the public way to their sockets."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        sock = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._sockets = [known for known in self._sockets if known.fileno() >= 0]
            self._sockets.append(sock)
            if self._is_cut:
                _shut(sock)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)
