"""When a call is sent again, and what its answer means: decided here, done by the two clients."""

import random
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from client.answers import Problem
from client.calls import Call, Conversation
from client.errors import ClientError, UnreachableError, refusal

T = TypeVar("T")

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
#: The API says: not now.
_LATER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
#: Nothing was sent, so nothing was done.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Pause:
    """Time to let pass before the next call."""

    seconds: float


#: What a client does for a conversation: calls and pauses. It is sent what became of each call.
Outcome = httpx.Response | httpx.TransportError | None
Flow = Generator[Call[Any] | Pause, Outcome, T]


@dataclass(frozen=True)
class Retries:
    """How often and when a call is sent again."""

    #: In all, the first one counted.
    attempts: int = 5
    #: Before the second attempt; doubles with each further one, and varies by a half.
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 10.0
    #: An API that asks for more patience than this is not waited for.
    retry_after_max_seconds: float = 60.0
    #: Told of each pause, and why; the client says nothing by itself.
    on_pause: Callable[["Pause", str], object] | None = None

    def pause(self, attempt: int) -> Pause:
        """Return the pause behind an attempt, the first one being 1."""
        # An exponent without a bound overflows in a stream that is resumed for days.
        seconds = self.backoff_seconds * 2.0 ** min(attempt - 1, 16)
        return Pause(min(seconds, self.backoff_max_seconds) * random.uniform(0.5, 1))  # noqa: S311

    def carry(self, conversation: Conversation[T]) -> Flow[T]:
        """Carry a conversation through refusals and lost connections."""
        go_on = partial(conversation.send, None)
        while True:
            try:
                call = go_on()
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                go_on = partial(conversation.send, (yield from self._attempts(call)))
            except ClientError as error:
                go_on = partial(conversation.throw, error)

    def _attempts(self, call: Call[T]) -> Flow[T]:
        for attempt in range(1, self.attempts + 1):
            outcome = yield call
            assert outcome is not None  # noqa: S101 - only a pause has none
            pause = self._again(call, outcome, attempt)
            if pause is None:
                break
            if self.on_pause:
                self.on_pause(pause, _reason(outcome))
            yield pause
        return _read(call, outcome)

    def _again(self, call: Call[Any], outcome: Outcome, attempt: int) -> Pause | None:
        """Return the pause before the next attempt; None if there is to be none."""
        if attempt == self.attempts:
            return None
        if isinstance(outcome, httpx.TransportError):
            may = call.repeatable or isinstance(outcome, _NOT_SENT)
            return self.pause(attempt) if may else None
        if outcome is None or outcome.status_code not in _LATER or problem_of(outcome).job_id:
            return None  # the error of a job stays what it is
        wished = _retry_after(outcome)
        if wished is None:
            return self.pause(attempt)
        return Pause(wished) if wished <= self.retry_after_max_seconds else None


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the API asks for; it may name a date too."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _reason(outcome: Outcome) -> str:
    if isinstance(outcome, httpx.Response):
        return problem_of(outcome).detail
    return _silence(outcome) if outcome else ""


def _silence(error: httpx.TransportError) -> str:
    """Say whom nobody heard of, and why."""
    url = error.request.url
    return f"no answer from {url.scheme}://{url.netloc.decode()}: {reason_of(error)}"


def reason_of(error: httpx.TransportError) -> str:
    """Return why a connection failed, in words."""
    return _ERRNO.sub("", str(error)) or type(error).__name__


def _read(call: Call[T], outcome: Outcome) -> T:
    if isinstance(outcome, httpx.TransportError):
        raise UnreachableError(_silence(outcome)) from outcome
    assert outcome is not None  # noqa: S101
    if not outcome.is_success:
        raise refusal(problem_of(outcome))
    try:
        return call.answer.validate_json(outcome.content)
    except ValidationError as error:
        what = f"{call.method} {call.path} answered what this client cannot read"
        raise ClientError(f"{what}; is it the platform's API, of this version? {error}") from error


def problem_of(response: httpx.Response) -> Problem:
    """Return the problem document of a refusal; one made of its status where there is none."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = response.reason_phrase or "Error"
        detail = f"{phrase}: {response.text[:300]}".removesuffix(": ")
        code = phrase.lower().replace(" ", "_")
        return Problem(title=phrase, status=response.status_code, detail=detail, code=code)
