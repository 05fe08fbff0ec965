"""The events of a job arrive once each, through any number of broken connections."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal

import httpx
import pytest

from client import Event, NotFoundError
from client.errors import StreamError
from tests.either_client import STYLES, EitherClient, Handler

RUNNING = {
    "job_id": "01a2",
    "kind": "infer",
    "state": "running",
    "created_at": "2026-11-22T10:00:00Z",
}
PIECES = [("token", {"text": word}) for word in ("a", " b", " c", " d")]
EVENTS = [("state", {"state": "running"}), *PIECES, ("done", {"state": "succeeded"})]

Collect = Callable[[Handler], list[Event]]


class CutStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.ReadError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
        raise httpx.ReadError("cut")


class EventApi:
    """Sends a job's events behind the asked one; each connection breaks inside a later one."""

    def __init__(self, events: int, *, job: dict[str, str] = RUNNING) -> None:
        self._per_connection = events
        self._job = job
        self.asked_after: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json=self._job)
        last = request.headers.get("Last-Event-ID")
        self.asked_after.append(last)
        first = int(last or 0)
        sent = EVENTS[first : first + self._per_connection]
        text = "".join(
            f"event: {name}\ndata: {json.dumps(data)}\nid: {number}\n\n: still here\n\n"
            for number, (name, data) in enumerate(sent, first + 1)
        )
        half = b"event: token\ndata: {" if first + len(sent) < len(EVENTS) else b""
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            stream=CutStream(text.encode() + half),
        )


@pytest.fixture(params=STYLES)
def collect(request: pytest.FixtureRequest) -> Collect:
    style: Literal["sync", "async"] = request.param
    return lambda handler: EitherClient(style, handler=handler).collect(
        lambda client: client.jobs.events("01a2")
    )


@pytest.mark.parametrize("per_connection", [1, 2, 4, 6])
def test_each_event_comes_once_however_often_the_connection_breaks(
    collect: Collect, per_connection: int
) -> None:
    api = EventApi(per_connection)

    events = collect(api)

    assert [(event.name, event.data) for event in events] == EVENTS
    assert "".join(event.text for event in events) == "a b c d"
    resumed = [str(number) for number in range(per_connection, len(EVENTS), per_connection)]
    assert api.asked_after == [None, *resumed]


def test_a_job_whose_events_are_forgotten_is_done(collect: Collect) -> None:
    (event,) = collect(EventApi(0, job=RUNNING | {"state": "succeeded"}))
    assert (event.name, event.data) == ("done", {"state": "succeeded"})


def test_a_job_that_is_not_there_is_said_to_be_so(collect: Collect) -> None:
    problem = {"title": "Not Found", "status": 404, "detail": "no job", "code": "job_not_found"}
    with pytest.raises(NotFoundError, match="no job"):
        collect(lambda _: httpx.Response(404, json=problem))


def test_a_stream_that_never_brings_anything_is_given_up(collect: Collect) -> None:
    with pytest.raises(StreamError):
        collect(EventApi(0))


def test_events_that_a_reader_leaves_are_not_read_on() -> None:
    api = EventApi(6)
    first = EitherClient("sync", handler=api).ask(lambda client: next(client.jobs.events("01a2")))
    assert first.name == "state"
    assert api.asked_after == [None]
