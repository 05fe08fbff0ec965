"""Blocking calls that are left when the job is told to stop."""

import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from shared.cancellation import CancelToken, CommitToken
from shared.errors import CancelledError, DrainingError
from shared.interruptible import current_token, interrupted_by, interruptible
from tests.processes import wait_until


@pytest.fixture
def token() -> Iterator[CancelToken]:
    token = CancelToken()
    with interrupted_by(token):
        yield token


@pytest.fixture
def frozen() -> Iterator[threading.Event]:
    """Lets what waits for it go on at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_call_returns_and_raises_as_if_it_were_made_here(token: CancelToken) -> None:
    assert interruptible(lambda: 7) == 7
    with pytest.raises(KeyError, match="x"):
        interruptible(lambda: dict[str, int]()["x"])


def test_without_a_token_it_is_made_here() -> None:
    assert interruptible(threading.get_ident) == threading.get_ident()


def test_the_call_sees_the_context_but_is_not_interrupted_twice(token: CancelToken) -> None:
    name = ContextVar("name", default="")
    name.set("job")
    assert interruptible(lambda: (name.get(), current_token())) == ("job", None)
    assert current_token() is token


def test_a_cancel_leaves_a_call_that_hangs(token: CancelToken, frozen: threading.Event) -> None:
    def hang() -> None:
        threading.Timer(0, token.cancel, (CancelledError("enough"),)).start()
        frozen.wait(60)

    with pytest.raises(CancelledError, match="enough"):
        interruptible(hang)
    assert not frozen.is_set()


def test_what_a_call_that_was_left_returns_is_discarded(
    token: CancelToken, frozen: threading.Event
) -> None:
    discarded: list[str] = []

    def late() -> str:
        token.cancel(CancelledError("enough"))
        frozen.wait(60)
        return "a connection"

    with pytest.raises(CancelledError):
        interruptible(late, discarded.append)
    assert discarded == []
    frozen.set()
    wait_until(lambda: discarded == ["a connection"], what="discarded")


def test_what_cleans_up_after_a_cancel_is_done(token: CancelToken) -> None:
    token.cancel(CancelledError("enough"))
    assert interruptible(lambda: "deleted") == "deleted"


def test_cleaning_up_at_a_frozen_server_is_left_too(
    token: CancelToken, frozen: threading.Event
) -> None:
    token.cancel(CancelledError("enough"))
    for _ in range(3):
        with pytest.raises(CancelledError):
            interruptible(lambda: frozen.wait(60))
    assert not frozen.is_set()


def test_work_that_commits_is_interrupted_by_a_drain_and_not_by_a_cancel() -> None:
    cancelled, drained = CancelToken(), CancelToken()
    with CommitToken(cancelled, 60).listening() as commit:
        cancelled.cancel(CancelledError("enough"))
        commit.check()
    with CommitToken(drained, 60).listening() as commit:
        drained.cancel(DrainingError("shutting down"))
        with pytest.raises(DrainingError):
            commit.check()


def test_a_cancel_ends_work_that_commits_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    token = CancelToken()
    with CommitToken(token, 0.01).listening() as commit:
        token.cancel(CancelledError("enough"))
        assert commit.wait(60)
        with pytest.raises(CancelledError):
            commit.check()
