"""Waiting for other threads, with an eye on the token."""

import threading
import time
from collections.abc import Callable

from shared.cancellation import CancelToken

#: A cancel does not notify the condition, so waiters look at their token this often.
_POLL_SECONDS = 0.1


def wait_until(
    changed: threading.Condition,
    ready: Callable[[], bool],
    token: CancelToken,
    seconds: float | None = None,
) -> bool:
    """Wait with the condition held until ``ready``; False if that took longer than ``seconds``."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while not ready():
        token.check()
        if deadline is not None and time.monotonic() >= deadline:
            return False
        changed.wait(_POLL_SECONDS)
    return True
