"""One thread that renews the leases of all running jobs, and hears what became of them."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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

#: A beat that a hanging Redis holds is not waited for any longer.
LAST_BEAT_SECONDS = 3.0

log = structlog.get_logger()


@dataclass(frozen=True)
class RunningJob:
    """A job in work."""

    job: Job
    token: CancelToken
    #: Of the thread that does it.
    thread: int = field(default_factory=threading.get_ident)
    started_at: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started_at


class Heartbeat:
    """Keeps the worker's jobs its own while they run."""

    def __init__(
        self,
        ledger: Ledger,
        every_seconds: float,
        on_beat: Callable[[int], None],
        max_seconds: float = math.inf,
    ) -> None:
        """``on_beat`` hears at each beat how many jobs run, of which none may for longer."""
        self._ledger = ledger
        self._every_seconds = every_seconds
        self._on_beat = on_beat
        self._max_seconds = max_seconds
        self._running: dict[str, RunningJob] = {}
        self._idle = threading.Condition()
        self._stopped = threading.Event()
        self._beating = threading.Lock()

    @contextmanager
    def watching(self, job: Job, token: CancelToken) -> Iterator[None]:
        """Renew a job's lease for the length of a block; set its token when it must stop."""
        running = RunningJob(job, token)
        with self._idle:
            self._running[job.id] = running
        try:
            yield
        finally:
            self.forget(running)

    def forget(self, running: RunningJob) -> None:
        """Care for a job no longer, whether its work has ended or will not."""
        with self._idle:
            # A job that was given up may be back, in another thread.
            if self._running.get(running.job.id) is running:
                del self._running[running.job.id]
            self._idle.notify_all()

    def beat(self) -> None:
        """Renew every lease once."""
        try:
            for running in self.running():
                self._renew(running)
        except UnavailableError as error:
            # The next beat tries again; to wait for each in turn would cost the last its lease.
            log.warning("leases not renewed", reason=error.detail)
        try:
            self._on_beat(len(self._running))
        except UnavailableError as error:
            log.warning("not announced", reason=error.detail)

    def _renew(self, running: RunningJob) -> None:
        if running.seconds > self._max_seconds:
            order = f"the job ran for longer than {self._max_seconds:g} s, which none may"
            running.token.cancel(DeadlineExceededError(order))
        answer = self._ledger.renew(running.job)
        if answer in _ORDERS:
            kind, reason = _ORDERS[answer]
            running.token.cancel(kind(reason))

    def run(self) -> None:
        """Beat until stopped, whatever happens; the body of a thread."""
        while not self._stopped.wait(self._every_seconds):
            with self._beating:
                if not self._stopped.is_set():
                    self._beat_surely()

    def _beat_surely(self) -> None:
        try:
            self.beat()
        except Exception:
            log.exception("defect in a beat")

    def pause(self, seconds: float) -> None:
        """Wait; less when the worker stops."""
        self._stopped.wait(seconds)

    def drain(self, grace_seconds: float, stop_seconds: float) -> bool:
        """Let running jobs end for a while, then tell them to stop; return whether all have."""
        with self._idle:
            if self._idle.wait_for(lambda: not self._running, grace_seconds):
                return True
            for running in self._running.values():
                running.token.cancel(DrainingError("the worker is shutting down"))
            return self._idle.wait_for(lambda: not self._running, stop_seconds)

    def running(self) -> list[RunningJob]:
        """Return the jobs that run now."""
        return list(self._running.values())

    def stop(self) -> None:
        """End the thread; who has left must not be announced by a beat that was on its way."""
        self._stopped.set()
        if self._beating.acquire(timeout=LAST_BEAT_SECONDS):
            self._beating.release()
