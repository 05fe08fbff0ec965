"""The token through which work is told to stop."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from shared.errors import DrainingError, Interruption, LeaseLostError


class CancelToken:
    """Set once, by anyone; looked at by the work between chunks, files and generated tokens."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._reason: Interruption | None = None
        self._cancelled_at = 0.0
        self._callbacks: list[Callable[[], object]] = []

    def cancel(self, reason: Interruption) -> None:
        """Ask the work to stop; the first reason stays."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
                self._cancelled_at = time.monotonic()
            callbacks, self._callbacks = self._callbacks, []
        self._event.set()
        for callback in callbacks:
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call back when the token is set within a block, in the thread that sets it.

        A token that is set already calls back at once. The callback must be quick, and not raise.
        """
        with self._lock:
            is_set = self._reason is not None
            if not is_set:
                self._callbacks.append(callback)
        if is_set:
            callback()
        try:
            yield
        finally:
            with self._lock, suppress(ValueError):  # it was called
                self._callbacks.remove(callback)

    @property
    def reason(self) -> Interruption | None:
        """Why the work must stop; None while it may go on."""
        return self._reason

    @property
    def cancelled(self) -> bool:
        """Whether the work must stop; costs well under a microsecond."""
        return self._event.is_set()

    @property
    def cancelled_seconds(self) -> float:
        """For how long the work has been told to stop; 0 while it may go on."""
        return time.monotonic() - self._cancelled_at if self.cancelled else 0.0

    def check(self) -> None:
        """Raise the reason if the work must stop."""
        if self._reason is not None:
            raise self._reason

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until the token is set, at most ``timeout_seconds``; return whether it is set."""
        return self._event.wait(timeout_seconds)


class CommitToken(CancelToken):
    """The token of work that, once begun, is finished or done again.

    It is cancelled at once where another run of the job follows: the worker shuts down, or lost the
    job's lease. Where the client cancelled the job, or its deadline passed, the work has
    ``seconds`` to end: a store that is away may need for ever.
    """

    def __init__(self, token: CancelToken, seconds: float) -> None:
        super().__init__()
        self._token = token
        self._seconds = seconds

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Hear within a block what the job's own token is told."""
        with self._token.calling(self._hear):
            yield self

    def _hear(self) -> None:
        reason = self._token.reason
        if isinstance(reason, DrainingError | LeaseLostError):
            self.cancel(reason)
        elif reason is not None:
            timer = threading.Timer(self._seconds, self.cancel, (reason,))
            timer.daemon = True
            timer.start()
