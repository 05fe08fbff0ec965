"""Calls of the API as data: what is sent, and how its answer is read. Nothing here does I/O."""

import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import TypeAdapter

from client.answers import Job
from client.errors import ProblemError

T = TypeVar("T")

#: For a connection, and between two pieces of an answer.
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Upload:
    """A file on its way to the API."""

    name: str
    content: Path | bytes | BinaryIO

    def open(self) -> bytes | BinaryIO:
        """Return what an attempt sends, from its beginning."""
        if isinstance(self.content, Path):
            return self.content.open("rb")
        if not isinstance(self.content, bytes):
            self.content.seek(0)
        return self.content


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of the API."""

    method: str
    path: str
    #: Reads the JSON of a successful answer.
    answer: TypeAdapter[T]
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    upload: Upload | None = None
    #: Whether it may be sent again when nobody knows if the first one arrived.
    repeatable: bool = True
    timeout_seconds: float = TIMEOUT_SECONDS


#: Several calls, one after the other: yields each, is sent its answer, and returns what they give.
Conversation = Generator[Call[Any], Any, T]


def ask(call: Call[T]) -> Conversation[T]:
    """Make one call within a conversation: ``yield from`` this."""
    answer: T = yield call
    return answer


def get(path: str, answer: Any, **params: Any) -> Call[Any]:
    """Return a call that looks at something."""
    return Call("GET", path, TypeAdapter(answer), params=_given(params))


def post(path: str, answer: Any, body: Mapping[str, Any], *, repeatable: bool = True) -> Call[Any]:
    """Return a call that changes something at once."""
    return Call("POST", path, TypeAdapter(answer), body=_given(body), repeatable=repeatable)


def post_once(path: str, answer: Any) -> Call[Any]:
    """Return a call that is done once, however often it is sent."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    return Call("POST", path, TypeAdapter(answer), body={}, headers=headers)


def submit(
    path: str, body: Mapping[str, Any], idempotency_key: str | None = None
) -> Conversation[Job]:
    """Submit a job; however often it is sent, there is one job."""
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    call = Call("POST", path, TypeAdapter(Job), body=_given(body), headers=headers)
    try:
        return (yield from ask(call))
    except ProblemError as error:
        # It was accepted before, and has failed since: the repeated call answers with its error.
        if error.problem.job_id is None:
            raise
        looked_up: Call[Job] = get(f"/jobs/{error.problem.job_id}", Job)
        return (yield from ask(looked_up))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what was not given; the API has its own defaults."""
    return {name: value for name, value in values.items() if value is not None}
