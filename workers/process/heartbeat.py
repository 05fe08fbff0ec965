"""One thread that renews the leases of all running jobs and learns what became of them."""

import math
import threading
import time
from collections.abc import Callable, Mapping
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

#: Wait for the last beat at most so long, if Redis holds it.
LAST_BEAT_SECONDS = 3.0

log = structlog.get_logger()

#: Returns the models that are warm, each with the seconds that a load takes.
WarmLoads = Callable[[], Mapping[str, float]]


@dataclass(eq=False)
class RunningJob:
    """A run of a job in this process."""

    job: Job
    cancel: CancelToken = field(default_factory=CancelToken)
    #: The thread that runs it.
    thread: int = 0
    started_at: float = field(default_factory=time.monotonic)
    #: Whether the work is over and only its end is still to be written.
    over: bool = False

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started_at


class Heartbeat:
    """Keeps the leases of the worker's jobs while they run."""

    def __init__(
        self,
        worker: str,
        ledger: Ledger,
        every_seconds: float,
        on_beat: Callable[[], None],
        max_seconds: float = math.inf,
        warm_loads: WarmLoads | None = None,
    ) -> None:
        """``on_beat`` is called after each beat; no job may run for longer than ``max_seconds``."""
        self._worker = worker
        self._ledger = ledger
        self._every_seconds = every_seconds
        self._on_beat = on_beat
        self._max_seconds = max_seconds
        self._warm_loads = warm_loads
        self._running: dict[str, RunningJob] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._beating = threading.Lock()

    def watch(self, job: Job) -> RunningJob:
        """Renew a job's lease from now on; its token is set when it must stop."""
        running = RunningJob(job)
        with self._lock:
            former = self._running.get(job.id)
            self._running[job.id] = running
        if former is not None:
            # This worker lost the job, and has claimed it again.
            former.cancel.cancel(LeaseLostError(f"job {job.id} was claimed again"))
        return running

    def forget(self, running: RunningJob) -> None:
        """Renew a lease no longer, because the run has ended or was given up."""
        with self._lock:
            if self._running.get(running.job.id) is running:
                del self._running[running.job.id]

    def beat(self) -> None:
        """Renew all leases in one call."""
        runs = self.running()
        for running in runs:
            if running.seconds > self._max_seconds and not running.over:
                order = f"the job ran for longer than {self._max_seconds:g} s, which none may"
                running.cancel.cancel(DeadlineExceededError(order))
        try:
            self._renew(runs)
        except UnavailableError as error:
            log.warning("leases not renewed", reason=error.detail)
        try:
            self._on_beat()
        except UnavailableError as error:
            log.warning("not announced", reason=error.detail)

    def _renew(self, runs: list[RunningJob]) -> None:
        # At each beat, as Redis forgets it when it stands still or its clock steps.
        loads = self._warm_loads() if self._warm_loads else None
        answers = self._ledger.renew(self._worker, [running.job for running in runs], loads)
        for running in runs:
            answer = answers[running.job.id]
            if answer in _ORDERS:
                kind, reason = _ORDERS[answer]
                running.cancel.cancel(kind(reason))

    def run(self) -> None:
        """Beat until stopped; the body of a thread."""
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

    def cancel(self, job_id: str) -> None:
        """Tell a job that runs here at once that the client cancelled it."""
        with self._lock:
            running = self._running.get(job_id)
        if running is not None:
            running.cancel.cancel(CancelledError(_ORDERS["cancel"][1]))

    def stop_work(self) -> None:
        """Tell all running jobs to stop, because the worker shuts down."""
        for running in self.running():
            running.cancel.cancel(DrainingError("the worker is shutting down"))

    def running(self) -> list[RunningJob]:
        """Return the jobs that run now."""
        with self._lock:
            return list(self._running.values())

    def stop(self) -> None:
        """End the thread, and wait for a beat that is under way."""
        self._stopped.set()
        if self._beating.acquire(timeout=LAST_BEAT_SECONDS):
            self._beating.release()
