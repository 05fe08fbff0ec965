"""The client for programs that wait for each answer."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Self, TypeVar

import httpx
from httpx_sse import EventSource

from client.answers import Event
from client.calls import Call, Conversation
from client.connection import Connection, Sending
from client.following import SILENCE_SECONDS, Following
from client.groups import Files, Health, Inference, Jobs, Models, SyncDriver
from client.retries import Outcome, Pause, Retries

T = TypeVar("T")


class Client:
    """Calls the platform's API; a context manager, safe to use from several threads."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.connection = Connection.of(url, api_key)
        self.retries = retries or Retries()
        self._http = httpx.Client(
            base_url=self.connection.url,
            headers=self.connection.headers,
            trust_env=not self.connection.on_this_machine,
            transport=transport,
        )
        self.jobs: Jobs[SyncDriver] = Jobs(self)
        self.models: Models[SyncDriver] = Models(self)
        self.inference: Inference[SyncDriver] = Inference(self)
        self.files: Files[SyncDriver] = Files(self)
        self.health: Health[SyncDriver] = Health(self)

    def run(self, conversation: Conversation[T]) -> T:
        """Make the calls of a conversation, and return what it gives."""
        flow, outcome = self.retries.carry(conversation), None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = self._do(step)

    def _do(self, step: Call[object] | Pause) -> Outcome:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            with Sending(step) as sending:
                return self._http.request(**sending.arguments)
        except httpx.TransportError as error:
            return error

    def follow(self, following: Following) -> Iterator[Event]:
        """Yield the events of a job, through as many connections as it takes."""
        while not following.over:
            with closing(self._events(following)) as events:
                yield from events
            if not following.over:
                step = following.after_break(self.run(following.look()))
                if isinstance(step, Event):
                    yield step
                else:
                    time.sleep(step.seconds)

    def _events(self, following: Following) -> Generator[Event]:
        """Yield the events of one connection, until it breaks."""
        try:
            with self._http.stream(
                "GET", following.path, headers=following.headers, timeout=SILENCE_SECONDS
            ) as response:
                if response.is_success:
                    for received in EventSource(response).iter_sse():
                        if event := following.take(received):
                            yield event
        except httpx.TransportError:
            return

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
