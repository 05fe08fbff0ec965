"""One thread that renews the leases of all running jobs, and hears what became of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DeadlineExceededError,
    DrainingError,
    Interruption,
    LeaseLostError,
    UnavailableError,
)
from shared.jobs import Job
from shared.ledger import Ledger

#: What the answer to a renewal tells the work to do, and why.
_ORDERS: dict[str, tuple[type[Interruption], str]] = {
    "cancel": (CancelledError, "the client cancelled the job"),
    "late": (DeadlineExceededError, "the job's deadline passed while it ran"),
    "lost": (LeaseLostError, "the job belongs to another worker now"),
}

log = structlog.get_logger()


class Heartbeat:
    """Keeps the worker's jobs its own while they run."""

    def __init__(
        self, ledger: Ledger, every_seconds: float, announce: Callable[[int], None]
    ) -> None:
        self._ledger = ledger
        self._every_seconds = every_seconds
        self._announce = announce
        self._running: dict[str, tuple[Job, CancelToken]] = {}
        self._idle = threading.Condition()
        self._stopped = threading.Event()

    @contextmanager
    def watching(self, job: Job, token: CancelToken) -> Iterator[None]:
        """Renew a job's lease for the length of a block; set its token when it must stop."""
        with self._idle:
            self._running[job.id] = (job, token)
        try:
            yield
        finally:
            with self._idle:
                del self._running[job.id]
                self._idle.notify_all()

    def beat(self) -> None:
        """Renew every lease once."""
        for job, token in list(self._running.values()):
            try:
                answer = self._ledger.renew(job)
            except UnavailableError as error:
                log.warning("lease not renewed", job_id=job.id, reason=error.detail)
                continue
            if answer in _ORDERS:
                order, reason = _ORDERS[answer]
                token.cancel(order(reason))
        try:
            self._announce(len(self._running))
        except UnavailableError as error:
            log.warning("not announced", reason=error.detail)

    def run(self) -> None:
        """Beat until stopped; the body of a thread."""
        while not self._stopped.wait(self._every_seconds):
            self.beat()

    def pause(self, seconds: float) -> None:
        """Wait; less when the worker stops."""
        self._stopped.wait(seconds)

    def drain(self, grace_seconds: float, stop_seconds: float) -> bool:
        """Let running jobs end for a while, then tell them to stop; return whether all have."""
        with self._idle:
            if self._idle.wait_for(lambda: not self._running, grace_seconds):
                return True
            for _, token in self._running.values():
                token.cancel(DrainingError("the worker is shutting down"))
            return self._idle.wait_for(lambda: not self._running, stop_seconds)

    def unfinished(self) -> list[Job]:
        """Return the jobs that still run."""
        return [job for job, _ in list(self._running.values())]

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
