"""The slots of a worker: threads that claim jobs from the ledger and run them."""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

import structlog

from shared.errors import DrainingError, UnavailableError
from shared.jobs import Job
from shared.ledger import Claimed, Ledger, Want
from workers.context import ModelAffinity
from workers.process.heartbeat import Heartbeat, RunningJob
from workers.process.runner import NextWant, RunOutcome, nothing

#: An idle slot waits for work at most so long before it asks the ledger again.
WAIT_SECONDS = 1.0
#: Between two tries to reach a Redis that is away.
OUTAGE_SECONDS = 1.0

log = structlog.get_logger()


class JobRunner(Protocol):
    """Runs one watched job."""

    def run(self, running: RunningJob, next_want: NextWant = nothing) -> RunOutcome:
        """Run a job to its end, and claim what ``next_want`` returns."""


class JobObserver(Protocol):
    """Is told when a run starts and when it has ended."""

    def started(self, job: Job) -> None:
        """Note that a run starts."""

    def left(self, job: Job, outcome: RunOutcome, seconds: float) -> None:
        """Note what came of a run."""


class _Slot:
    """One thread, and when it last gave a sign of life."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.thread: threading.Thread | None = None
        self.busy = False
        self.seen_at = time.monotonic()


class Slots:
    """The threads that run a worker's jobs."""

    def __init__(
        self,
        want: Want,
        number: int,
        ledger: Ledger,
        heartbeat: Heartbeat,
        runner: JobRunner,
        observer: JobObserver,
        models: ModelAffinity | None = None,
    ) -> None:
        """``want`` says whose slots these are and what they take; its ``slot`` names each."""
        self._template = want
        self._slots = [_Slot(f"{want.slot}{place}") for place in range(number)]
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._runner = runner
        self._observer = observer
        self._models = models
        self._stopping = threading.Event()
        #: Set when a slot that left jobs to other workers should ask again.
        self._changed = threading.Event()

    def start(self) -> None:
        """Start to claim."""
        for slot in self._slots:
            slot.thread = threading.Thread(
                target=self._serve, args=(slot,), name=f"slot {slot.name}", daemon=True
            )
            slot.thread.start()

    def stop(self) -> None:
        """Claim nothing more. What was claimed and not begun is given back."""
        self._stopping.set()
        self._changed.set()

    def look_again(self) -> None:
        """Ask the ledger again, because the worker can take other jobs now."""
        self._changed.set()

    def wait(self, seconds: float) -> bool:
        """Wait after ``stop`` until all runs have ended; return whether they have."""
        until = time.monotonic() + seconds
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(max(until - time.monotonic(), 0))
        return not any(slot.thread and slot.thread.is_alive() for slot in self._slots)

    def seen_at(self) -> float:
        """Return when the slowest idle slot last did something; the present if all are busy."""
        idle = [slot.seen_at for slot in self._slots if not slot.busy]
        return min(idle, default=time.monotonic())

    def _serve(self, slot: _Slot) -> None:
        claimed = Claimed()
        while claimed.jobs or not self._stopping.is_set():
            slot.seen_at = time.monotonic()
            try:
                if claimed.jobs:
                    slot.busy = True
                    claimed = self._run(slot, claimed.jobs)
                    slot.busy = False
                else:
                    claimed = self._claim(slot)
                if not claimed.jobs and not self._stopping.is_set():
                    self._wait(claimed)
            except UnavailableError as error:
                log.warning("no work from Redis", reason=error.detail)
                self._stopping.wait(OUTAGE_SECONDS)
            except Exception:
                # The lease of what was claimed runs out; the slot must live on.
                log.exception("defect in a slot", slot=slot.name)
                claimed = Claimed()
                self._stopping.wait(OUTAGE_SECONDS)
            finally:
                slot.busy = False

    def _claim(self, slot: _Slot) -> Claimed:
        want = self._want(slot)
        while True:
            try:
                return self._ledger.claim(want)
            except UnavailableError as error:
                # The reply may be lost and not the claim, so the same claim is repeated.
                log.warning("claim not answered", reason=error.detail)
                slot.seen_at = time.monotonic()
                if self._stopping.wait(OUTAGE_SECONDS):
                    return self._ledger.claim(want)

    def _wait(self, claimed: Claimed) -> None:
        if claimed.wait_seconds is None:
            template = self._template
            self._ledger.wait_for_work(template.queues, WAIT_SECONDS, alone=template.alone)
        elif self._changed.wait(claimed.wait_seconds) and not self._stopping.is_set():
            self._changed.clear()

    def _want(self, slot: _Slot) -> Want:
        models = self._models
        return Want(
            slot=slot.name,
            owner=self._template.owner,
            queues=self._template.queues,
            warm=None if models is None else models.warm_models(),
            loads=models is None or models.may_load(),
            alone=self._template.alone,
        )

    def _run(self, slot: _Slot, jobs: Sequence[Job]) -> Claimed:
        """Run what was claimed together; return what was claimed with the last end."""
        runs = [self._heartbeat.watch(job) for job in jobs]
        if self._stopping.is_set():
            for running in runs:
                running.cancel.cancel(DrainingError("the worker is shutting down"))
        if len(runs) == 1:
            return self._run_one(runs[0], lambda: self._next_want(slot))
        # The jobs of a batched model run beside each other.
        others = [
            threading.Thread(target=self._run_one, args=(each,), name=f"run {slot.name}")
            for each in runs[1:]
        ]
        for thread in others:
            thread.start()
        claimed = self._run_one(runs[0])
        for thread in others:
            thread.join()
        return claimed

    def _run_one(self, running: RunningJob, next_want: NextWant = nothing) -> Claimed:
        self._observer.started(running.job)
        outcome = self._runner.run(running, next_want)
        self._observer.left(running.job, outcome, running.seconds)
        return outcome.claimed

    def _next_want(self, slot: _Slot) -> Want | None:
        return None if self._stopping.is_set() else self._want(slot)
