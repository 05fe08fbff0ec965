"""``Client`` and ``AsyncClient``, asked in one way, so that each test is of both."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import httpx

from client import AsyncClient, Client, Retries

STYLES = ("sync", "async")
#: No test waits for a pause.
AT_ONCE = Retries(backoff_seconds=0)

Handler = Callable[[httpx.Request], httpx.Response]


class EitherClient:
    """Makes a client for each question."""

    def __init__(
        self,
        style: Literal["sync", "async"],
        url: str | None = None,
        *,
        handler: Handler | None = None,
        retries: Retries = AT_ONCE,
    ) -> None:
        self._sync = style == "sync"
        self._options: dict[str, Any] = {"url": url, "retries": retries}
        if handler:
            self._options["transport"] = httpx.MockTransport(handler)

    def ask(self, operation: Callable[[Any], Any]) -> Any:
        """Return what an operation gives: ``ask(lambda client: client.models.ls())``."""
        if self._sync:
            with Client(**self._options) as client:
                return operation(client)
        return asyncio.run(self._answer(operation))

    def collect(self, operation: Callable[[Any], Any]) -> list[Any]:
        """Return all that an operation yields."""
        if self._sync:
            return list(self.ask(lambda client: list(operation(client))))

        async def collected(client: AsyncClient) -> list[Any]:
            return [each async for each in operation(client)]

        return list(asyncio.run(self._answer(collected)))

    async def _answer(self, operation: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        async with AsyncClient(**self._options) as client:
            return await operation(client)
