"""How much a client may send: the one limit that must hold before anything is read."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Refuses a larger body with 413, by its declared length or while it comes."""

    def __init__(self, app: ASGIApp, max_bytes: int, exempt: str) -> None:
        self._app = app
        self._exempt = exempt
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, with a body that cannot be read past the limit."""
        if scope.get("path") == self._exempt:
            await self._app(scope, receive, send)
            return
        headers = dict(scope.get("headers", ()))
        size_bytes = int(headers.get(b"content-length", 0))
        came_bytes = 0

        async def limited() -> Message:
            nonlocal came_bytes
            if size_bytes <= self._max_bytes:
                message = await receive()
                came_bytes += len(message.get("body", b""))
            if max(size_bytes, came_bytes) > self._max_bytes:
                raise HTTPException(413, f"the body is larger than {self._max_bytes} bytes")
            return message

        await self._app(scope, limited, send)
