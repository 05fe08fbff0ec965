"""The client for programs that do several things at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Self, TypeVar

import httpx
from httpx_sse import EventSource

from client.answers import Event
from client.calls import Call, Conversation
from client.connection import Connection, Sending
from client.following import SILENCE_SECONDS, Following
from client.groups import AsyncDriver, Files, Health, Inference, Jobs, Models
from client.retries import Outcome, Pause, Retries

T = TypeVar("T")


class AsyncClient:
    """Calls the platform's API; an asynchronous context manager for one event loop."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.connection = Connection.of(url, api_key)
        self.retries = retries or Retries()
        self._http = httpx.AsyncClient(
            base_url=self.connection.url,
            headers=self.connection.headers,
            trust_env=not self.connection.on_this_machine,
            transport=transport,
        )
        self.jobs: Jobs[AsyncDriver] = Jobs(self)
        self.models: Models[AsyncDriver] = Models(self)
        self.inference: Inference[AsyncDriver] = Inference(self)
        self.files: Files[AsyncDriver] = Files(self)
        self.health: Health[AsyncDriver] = Health(self)

    async def run(self, conversation: Conversation[T]) -> T:
        """Make the calls of a conversation, and return what it gives."""
        flow, outcome = self.retries.carry(conversation), None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = await self._do(step)

    async def _do(self, step: Call[object] | Pause) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            with Sending(step) as sending:
                return await self._http.request(**sending.arguments)
        except httpx.TransportError as error:
            return error

    async def follow(self, following: Following) -> AsyncIterator[Event]:
        """Yield the events of a job, through as many connections as it takes."""
        while not following.over:
            async with aclosing(self._events(following)) as events:
                async for event in events:
                    yield event
            if not following.over:
                step = following.after_break(await self.run(following.look()))
                if isinstance(step, Event):
                    yield step
                else:
                    await asyncio.sleep(step.seconds)

    async def _events(self, following: Following) -> AsyncGenerator[Event]:
        """Yield the events of one connection, until it breaks."""
        try:
            async with self._http.stream(
                "GET", following.path, headers=following.headers, timeout=SILENCE_SECONDS
            ) as response:
                if response.is_success:
                    async with aclosing(EventSource(response).aiter_sse()) as source:
                        async for received in source:
                            if event := following.take(received):
                                yield event
        except httpx.TransportError:
            return

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
