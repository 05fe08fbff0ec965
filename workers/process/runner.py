"""Runs one claimed job to its end: the only place that catches everything a job may raise."""

import errno
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from shared.errors import (
    CancelledError,
    DrainingError,
    ErrorInfo,
    InsufficientDiskError,
    InternalError,
    Interruption,
    LeaseLostError,
    LifecycleError,
    OutOfMemoryError,
    UnavailableError,
)
from shared.interruptible import interrupted_by
from shared.jobs import Job, JobKind, JobState, Progress
from shared.ledger import Claimed, Ended, Ledger, NewJob, Want
from shared.settings import LedgerSettings
from workers.context import JobContext, Outcome, Work
from workers.process.heartbeat import Heartbeat, RunningJob
from workers.process.text_events import TextEvents, TextSender

#: Between two tries to write an end while Redis is away.
WRITE_RETRY_SECONDS = 1.0

log = structlog.get_logger()

#: Returns what the slot can take next; None if it takes nothing more.
NextWant = Callable[[], Want | None]


def nothing() -> None:
    """Take nothing after the job."""


@dataclass(frozen=True)
class RunOutcome:
    """What came of a run."""

    #: What the job is now: ended, ``queued`` again, ``running`` while it waits for a child, or
    #: ``lost`` to another worker.
    state: str
    error: LifecycleError | None = None
    claimed: Claimed = field(default_factory=Claimed)


class Runner:
    """Runs claimed jobs."""

    def __init__(
        self,
        ledger: Ledger,
        heartbeat: Heartbeat,
        works: Mapping[JobKind, Work],
        settings: LedgerSettings,
        before_end: Callable[[], None] = lambda: None,
    ) -> None:
        """``before_end`` is called when the work is over and its end is not yet written."""
        self._before_end = before_end
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._works = works
        self._settings = settings
        self._text_sender = TextSender()

    def run(self, running: RunningJob, next_want: NextWant = nothing) -> RunOutcome:
        """Run a job that is watched; claim what is wanted next in the call that ends it."""
        job = running.job
        running.thread = threading.get_ident()
        with structlog.contextvars.bound_contextvars(job_id=job.id, kind=job.kind.value):
            log.info("job started", model=job.model, attempt=job.attempts)
            texts = TextEvents(self._ledger, job, running.cancel, self._text_sender)
            context = self._context(running, texts)
            result, error = self._work(context)
            running.over = True
            try:
                self._before_end()
                outcome = self._end(context, texts, result, error, next_want())
            finally:
                self._heartbeat.forget(running)
            log.info(
                "job left",
                state=outcome.state,
                error=outcome.error.specific_code if outcome.error else None,
            )
            return outcome

    def _context(self, running: RunningJob, texts: TextEvents) -> JobContext:
        job = running.job

        def write_progress(progress: Progress) -> None:
            # A report that Redis misses fails no job: the next one brings what it said.
            try:
                if not self._ledger.report_progress(job, progress):
                    lost = LeaseLostError(f"job {job.id} belongs to another worker")
                    running.cancel.cancel(lost)
            except UnavailableError as error:
                log.warning("report not written", reason=error.detail)

        return JobContext(
            job,
            running.cancel,
            write_progress=write_progress,
            write_text=texts.add,
            write_thought=lambda text: texts.add(text, "thinking"),
        )

    def _work(self, context: JobContext) -> tuple[Outcome | None, LifecycleError | None]:
        try:
            context.check()
            with interrupted_by(context.cancel):
                result = self._works[context.job.kind](context)
        except LifecycleError as error:
            return None, error
        except MemoryError:
            return None, OutOfMemoryError("the worker has no memory for this job now")
        # A SystemExit or a MemoryError that leaves the body costs the pool its slot (field notes).
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return None, InsufficientDiskError(f"the worker's disk is full: {error}")
            log.exception("defect in a job")
            return None, InternalError(f"{type(error).__name__}: {error}")
        return result, None

    def _end(
        self,
        context: JobContext,
        texts: TextEvents,
        result: Outcome | None,
        error: LifecycleError | None,
        want: Want | None,
    ) -> RunOutcome:
        """Write how the work went, through an outage of Redis, until it is known to be written."""
        is_defect = False
        while True:
            try:
                context.flush()
                texts.send()
                return self._write_end(context.job, result, error, want)
            except UnavailableError as outage:
                log.warning("end not written yet", reason=outage.detail)
                self._heartbeat.pause(WRITE_RETRY_SECONDS)
            except Exception as defect:
                if is_defect:
                    raise
                # The result is not JSON, or Redis refuses what it is sent.
                log.exception("end cannot be written")
                error, result, is_defect = (
                    InternalError(f"the end cannot be written: {defect}"),
                    None,
                    True,
                )

    def _write_end(  # noqa: PLR0911 - one for each way to end
        self,
        job: Job,
        result: Outcome | None,
        error: LifecycleError | None,
        want: Want | None,
    ) -> RunOutcome:
        ledger = self._ledger
        if isinstance(result, NewJob | Job):
            return _outcome("running", ledger.delegate(job, result, want))
        if error is None:
            ended = ledger.finish(job, JobState.SUCCEEDED, result=result, want=want)
            return _outcome("succeeded", ended)
        if isinstance(error, LeaseLostError):
            return RunOutcome("lost", error, self._claim(want))
        if isinstance(error, DrainingError):
            return _outcome("queued", ledger.requeue(job, counts=False, want=want), error)
        if isinstance(error, CancelledError):
            return _outcome("cancelled", ledger.finish(job, JobState.CANCELLED, want=want), error)
        if isinstance(error, UnavailableError) and error.service:
            return self._wait_out(job, error, want)
        if error.retryable and job.attempts < job.max_attempts:
            delay, info = self._backoff(job, error), error.info()
            ended = ledger.requeue(job, delay_seconds=delay, error=info, want=want)
            return _outcome("queued", ended, error)
        ended = ledger.finish(job, JobState.FAILED, error=_final(error, job), want=want)
        return _outcome("failed", ended, error)

    def _claim(self, want: Want | None) -> Claimed:
        return self._ledger.claim(want) if want else Claimed()

    def _wait_out(self, job: Job, error: UnavailableError, want: Want | None) -> RunOutcome:
        """Give the job back until its service answers; fail it once the outage lasts too long."""
        asked = error.retry_after_seconds or 0
        waited = self._ledger.postpone(job, error.service, error.info(), asked, want=want)
        if not waited.over:
            return _outcome("queued", waited, error)
        detail = f"{error.detail} ({error.service} was away for {_span(waited.seconds)})"
        info = error.info().model_copy(update={"detail": detail})
        kept = self._ledger.finish(job, JobState.FAILED, error=info).kept
        return RunOutcome("failed" if kept else "lost", error, waited.claimed)

    def _backoff(self, job: Job, error: LifecycleError) -> float:
        """Return the wait before the next attempt: doubling, with jitter of a half.

        It comes on top of what the error itself asks for.
        """
        longest = self._settings.backoff_seconds * 2 ** (job.attempts - 1)
        bounded: float = min(longest, self._settings.backoff_max_seconds)
        jittered = bounded * random.uniform(0.5, 1)  # noqa: S311 - jitter
        return (error.retry_after_seconds or 0) + jittered


def _outcome(state: str, ended: Ended, error: LifecycleError | None = None) -> RunOutcome:
    return RunOutcome(state if ended.kept else "lost", error, ended.claimed)


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _final(error: LifecycleError, job: Job) -> ErrorInfo:
    info = error.info()
    if error.retryable or isinstance(error, Interruption):
        tries = "attempt" if job.attempts == 1 else "attempts"
        return info.model_copy(update={"detail": f"{info.detail} (after {job.attempts} {tries})"})
    return info
