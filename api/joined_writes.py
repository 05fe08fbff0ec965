"""uvicorn's HTTP protocol, with a response's head and body in one write.

uvicorn writes them apart. Each write is a call of the kernel that wakes the client up: one less is
a tenth of what a short answer costs here.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: More than this is written at once, so that flow control sees it.
HELD_BYTES = 64 * 1024


class JoinedWrites:
    """A transport that writes together what it is given in one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        """Write soon, in order."""
        if not self._held and data:
            self._loop.call_soon(self._flush)
        self._held += data
        if len(self._held) > HELD_BYTES:
            self._flush()

    def close(self) -> None:
        """Close when everything is written."""
        self._flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection over."""
        self._flush()
        self._transport.set_protocol(protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, bytearray()
            self._transport.write(held)


class JoinedWritesProtocol(HttpToolsProtocol):
    """Answers on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
