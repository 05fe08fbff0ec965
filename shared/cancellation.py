"""The token through which work is told to stop."""

import threading
import time

from shared.errors import DrainingError, Interruption, LeaseLostError


class CancelToken:
    """Set once, by anyone; looked at by the work between chunks, files and generated tokens."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._reason: Interruption | None = None
        self._cancelled_at = 0.0

    def cancel(self, reason: Interruption) -> None:
        """Ask the work to stop; the first reason stays."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
                self._cancelled_at = time.monotonic()
        self._event.set()

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

    It does not hear that the client cancelled the job or that its deadline passed. It is cancelled
    where another run of the job follows: the worker shuts down, or lost the job's lease.
    """

    def __init__(self, token: CancelToken) -> None:
        super().__init__()
        self._token = token

    def check(self) -> None:
        """Raise the reason if the work must stop."""
        if isinstance(reason := self._token.reason, DrainingError | LeaseLostError):
            self.cancel(reason)
        super().check()
