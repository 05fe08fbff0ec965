"""Runs one job from claim to end: the only place that catches everything a job may raise."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DrainingError,
    ErrorInfo,
    InternalError,
    Interruption,
    LeaseLostError,
    LifecycleError,
    OutOfMemoryError,
    UnavailableError,
)
from shared.interruptible import interrupted_by
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob
from shared.settings import LedgerSettings
from workers.context import JobContext
from workers.heartbeat import Heartbeat
from workers.pieces import Pieces
from workers.quarantine import Quarantine

#: What a work returns: the job's result, or the child that must end before the job goes on.
Outcome = dict[str, Any] | NewJob | Job
#: The work of one kind.
Work = Callable[[JobContext], Outcome]

#: Between two tries to write an end down while Redis is away.
SETTLE_RETRY_SECONDS = 1.0

log = structlog.get_logger()


class JobFailedError(Exception):
    """Tells Celery, and so Flower, that a job did not succeed; the ledger knows why."""


class Runner:
    """Claims jobs and does them."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        heartbeat: Heartbeat,
        works: Mapping[JobKind, Work],
        settings: LedgerSettings,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Take the place for jobs that must run alone; without one they are left to others."""
        self._name = name
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._works = works
        self._settings = settings
        self._quarantine = quarantine
        self._draining = False

    def stop_claiming(self) -> None:
        """Leave further hints to other workers."""
        self._draining = True

    def run(self, job_id: str) -> None:
        """Do a job if it is to be had; raise ``JobFailedError`` if it did not succeed."""
        if self._draining:
            return
        job = self._ledger.claim(job_id, self._name)
        if job is not None:
            self.do(job)
        elif self._quarantine is not None and self._ledger.quarantined(job_id):
            left = self._quarantine.run(job_id)
            if left is not None and left.error is not None:
                raise JobFailedError(f"{left.error.code}: {left.error.detail}")

    def do(self, job: Job) -> None:
        """Do a claimed job; raise ``JobFailedError`` if it did not succeed."""
        with structlog.contextvars.bound_contextvars(job_id=job.id, kind=job.kind.value):
            log.info("job started", model=job.model, attempt=job.attempts)
            token = CancelToken()
            with self._heartbeat.watching(job, token):
                pieces = Pieces(self._ledger, job)
                context = self._context(job, token, pieces)
                result, error = self._work(context)
                settled = self._settle(context, pieces, result, error)
            log.info("job left", state=settled, error=error.specific_code if error else None)
            if error is not None:
                raise JobFailedError(f"{error.specific_code}: {error.detail}")

    def _context(self, job: Job, token: CancelToken, pieces: Pieces) -> JobContext:
        def report(event: Callable[[], bool]) -> None:
            # Progress is worth no failure: what Redis misses now, the next report brings.
            try:
                if not event():
                    token.cancel(LeaseLostError(f"job {job.id} belongs to another worker"))
            except UnavailableError as error:
                log.warning("report not written", reason=error.detail)

        def write_token(text: str) -> None:
            pieces.add(text)
            report(pieces.send)

        def write_thought(text: str) -> None:
            pieces.add(text, "thinking")
            report(pieces.send)

        return JobContext(
            job,
            token,
            write_progress=lambda progress: report(
                lambda: self._ledger.report_progress(job, progress)
            ),
            write_token=write_token,
            write_thought=write_thought,
        )

    def _work(self, context: JobContext) -> tuple[Outcome | None, LifecycleError | None]:
        try:
            context.check()
            with interrupted_by(context.token):
                result = self._works[context.job.kind](context)
        except LifecycleError as error:
            return None, error
        except MemoryError:
            return None, OutOfMemoryError("the worker has no memory for this job now")
        # A SystemExit or a MemoryError that leaves the body costs the pool its slot (field notes).
        except BaseException as error:
            log.exception("defect in a job")
            return None, InternalError(f"{type(error).__name__}: {error}")
        return result, None

    def _settle(
        self,
        context: JobContext,
        pieces: Pieces,
        result: Outcome | None,
        error: LifecycleError | None,
    ) -> str:
        """Write down how the work went, through an outage of Redis, until it is known."""
        while True:
            try:
                context.flush()
                pieces.send()
                return self._write_end(context.job, result, error)
            except UnavailableError as outage:
                log.warning("end not written yet", reason=outage.detail)
                self._heartbeat.pause(SETTLE_RETRY_SECONDS)

    def _write_end(self, job: Job, result: Outcome | None, error: LifecycleError | None) -> str:
        ledger = self._ledger
        if isinstance(result, NewJob | Job):
            kept = ledger.delegate(job, result)
        elif error is None:
            kept = ledger.finish(job, JobState.SUCCEEDED, result=result)
        elif isinstance(error, LeaseLostError):
            return "lost"
        elif isinstance(error, DrainingError):
            kept = ledger.requeue(job, counts=False)
        elif isinstance(error, CancelledError):
            kept = ledger.finish(job, JobState.CANCELLED)
        elif isinstance(error, UnavailableError) and error.service:
            kept = self._wait_out(job, error)
        elif error.retryable and job.attempts < job.max_attempts:
            kept = ledger.requeue(job, delay_seconds=self._backoff(job, error), error=error.info())
        else:
            kept = ledger.finish(job, JobState.FAILED, error=_final(error, job))
        return ledger.get(job.id).state.value if kept else "lost"

    def _wait_out(self, job: Job, error: UnavailableError) -> bool:
        """Give the job back until its service answers; fail it once the outage lasts too long."""
        asked = error.retry_after_seconds or 0
        waited = self._ledger.postpone(job, error.service, error.info(), asked)
        if not waited.over:
            return waited.kept
        detail = f"{error.detail} ({error.service} was away for {_span(waited.seconds)})"
        info = error.info().model_copy(update={"detail": detail})
        return self._ledger.finish(job, JobState.FAILED, error=info)

    def _backoff(self, job: Job, error: LifecycleError) -> float:
        """Return the wait before the next attempt: doubling, with jitter of a half.

        It comes on top of what the error itself asks for.
        """
        longest = self._settings.backoff_seconds * 2 ** (job.attempts - 1)
        bounded: float = min(longest, self._settings.backoff_max_seconds)
        jittered = bounded * random.uniform(0.5, 1)  # noqa: S311 - jitter
        return (error.retry_after_seconds or 0) + jittered


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _final(error: LifecycleError, job: Job) -> ErrorInfo:
    info = error.info()
    if error.retryable or isinstance(error, Interruption):
        tries = "attempt" if job.attempts == 1 else "attempts"
        return info.model_copy(update={"detail": f"{info.detail} (after {job.attempts} {tries})"})
    return info
