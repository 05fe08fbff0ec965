"""How long a transfer holds on in place, with a clock that only its waits move."""

import pytest

from shared.cancellation import CancelToken
from shared.errors import CancelledError, NotFoundError, UnavailableError
from shared.retries import Hold


class Timeless(CancelToken):
    """A token whose waits take no time; remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout_seconds: float) -> bool:
        self.waits.append(timeout_seconds)
        return self.cancelled


@pytest.fixture
def token() -> Timeless:
    return Timeless()


@pytest.fixture
def hold(token: Timeless) -> Hold:
    return Hold(20.0, clock=lambda: sum(token.waits))


def away() -> UnavailableError:
    return UnavailableError("away", service="hub")


class Calls:
    """Fails so often, then returns; each call comes so much farther."""

    def __init__(self, failures: int, step: int = 0) -> None:
        self.failures = failures
        self.reached = 0
        self.count = 0
        self._step = step

    def __call__(self) -> str:
        self.count += 1
        self.reached += self._step
        if self.count <= self.failures:
            raise away()
        return "done"


def test_a_short_outage_is_held_out(hold: Hold, token: Timeless) -> None:
    assert hold.on(Calls(4), token) == "done"
    assert len(token.waits) == 4
    for number, wait in enumerate(token.waits):
        assert 0 <= wait <= hold.first_seconds * 2**number


def test_a_long_one_is_not(hold: Hold, token: Timeless) -> None:
    calls = Calls(1000)
    with pytest.raises(UnavailableError, match="away"):
        hold.on(calls, token)
    assert calls.count > 4
    assert 20 - hold.longest_seconds <= sum(token.waits) <= 20
    assert max(token.waits) <= hold.longest_seconds


def test_progress_starts_the_time_anew(hold: Hold, token: Timeless) -> None:
    calls = Calls(500, step=1)
    assert hold.on(calls, token, lambda: calls.reached) == "done"
    assert max(token.waits) <= hold.first_seconds


def test_the_service_is_left_alone_for_as_long_as_it_asks(hold: Hold, token: Timeless) -> None:
    error = away()
    error.retry_after_seconds = 7

    def limited() -> None:
        raise error

    with pytest.raises(UnavailableError):
        hold.on(limited, token)
    assert token.waits == [7, 7], "a third wait would be longer than it holds on"


def test_what_is_for_good_is_raised_at_once(hold: Hold, token: Timeless) -> None:
    def gone() -> None:
        raise NotFoundError("no such thing")

    with pytest.raises(NotFoundError):
        hold.on(gone, token)
    assert token.waits == []


def test_a_cancel_wins_over_the_error_that_it_causes(hold: Hold, token: Timeless) -> None:
    def cut() -> None:
        token.cancel(CancelledError("enough"))
        raise away()

    with pytest.raises(CancelledError):
        hold.on(cut, token)


def test_a_cancel_ends_the_wait() -> None:
    class CancelledWhileItWaits(CancelToken):
        def wait(self, timeout_seconds: float) -> bool:
            self.cancel(CancelledError("enough"))
            return super().wait(timeout_seconds)

    with pytest.raises(CancelledError):
        Hold(20.0).on(Calls(1), CancelledWhileItWaits())
