"""What a front that is told to stop still says."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import refusal
from shared.errors import UnavailableError


class Farewell:
    """Answers 503 to a call that the server cancels, because its grace time is over.

    uvicorn itself would answer 500, which a client takes for a defect and does not try again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on; an answer that has begun is cut, as its client can see."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if begun or scope["type"] != "http":
                raise
            error = UnavailableError("the front is shutting down", code="shutting_down")
            await refusal(error)(scope, receive, send)
