"""How long a transfer holds on in place before its job is given back to the ledger.

A cut connection or a restart takes seconds, and to go on with the next byte costs less than to run
the job again. An outage that lasts longer is waited out in the ledger, where a job holds no slot.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from shared.cancellation import CancelToken
from shared.errors import UnavailableError

T = TypeVar("T")


def _no_progress() -> int:
    return 0


@dataclass(frozen=True)
class Hold:
    """Repeats a call that meets ``UnavailableError``, until it made no progress for ``seconds``."""

    seconds: float
    #: The wait after the first failure is at most this long; it doubles with each further one.
    first_seconds: float = 0.4
    longest_seconds: float = 5.0
    clock: Callable[[], float] = time.monotonic

    def on(
        self, call: Callable[[], T], token: CancelToken, progress: Callable[[], int] = _no_progress
    ) -> T:
        """Return what the call returns; raise its error once it is in vain, or the token's reason.

        ``progress`` tells how far the call has come. Each time that is farther than ever before,
        the waits and the time begin anew.
        """

        def sleep(seconds: float) -> None:
            token.wait(seconds)
            token.check()

        def attempt() -> T:
            token.check()
            try:
                return call()
            except UnavailableError:
                token.check()  # a connection that a cancel has cut is no outage
                raise

        row = _Row(self, progress)
        retrying = Retrying(
            retry=retry_if_exception_type(UnavailableError),
            wait=row.wait,
            stop=row.stop,
            sleep=sleep,
            reraise=True,
        )
        return retrying(attempt)


class _Row:
    """Failures without progress between them."""

    def __init__(self, hold: Hold, progress: Callable[[], int]) -> None:
        self._hold = hold
        self._progress = progress
        self._farthest = progress()
        self._failures = 0
        self._since = hold.clock()
        self._backoff = wait_random_exponential(
            multiplier=hold.first_seconds, max=hold.longest_seconds
        )

    def wait(self, state: RetryCallState) -> float:
        """Return the wait after a failure, at least as long as the service asks for."""
        reached = self._progress()
        if reached > self._farthest or not self._failures:
            self._failures, self._since = 0, self._hold.clock()
        self._farthest = max(self._farthest, reached)
        self._failures += 1
        state.attempt_number = self._failures
        return max(self._backoff(state), _asked_seconds(state))

    def stop(self, state: RetryCallState) -> bool:
        """Return whether the next attempt would come too late."""
        waited = self._hold.clock() - self._since
        return waited + state.upcoming_sleep > self._hold.seconds


def _asked_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return getattr(error, "retry_after_seconds", None) or 0


#: For a file, which goes on at the next byte or is sent again.
HOLD = Hold(20.0)
#: For a part of an upload whose earlier parts would be lost.
HOLD_PARTS = Hold(120.0)
