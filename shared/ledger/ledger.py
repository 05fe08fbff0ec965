"""The ledger's operations; each that writes is one atomic Lua call of a script beside this."""

import hashlib
import json
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from shared.errors import ConflictError, ErrorInfo, IdempotencyConflictError
from shared.jobs import Job, JobState, Progress
from shared.ledger.connection import redis_errors
from shared.ledger.counts import Counts, to_counts
from shared.ledger.reader import JobReader
from shared.ledger.record import NewJob, to_job
from shared.ledger.refusals import refused
from shared.ledger.scripts import REDIS_CLOCK, Hint, Scripts
from shared.settings import LedgerSettings

#: Jobs looked at in one pass of the reconciler.
RECONCILE_LIMIT = 500

#: Tells Celery of jobs; does not raise when Celery's broker is away.
Publish = Callable[[Sequence[Hint]], None]


def _nowhere(_: Sequence[Hint]) -> None:
    """Leave the hints to the reconciler."""


@dataclass(frozen=True)
class Reconciliation:
    """What one pass of the reconciler found."""

    #: Jobs that Celery is to know of; of some the message may be lost.
    hints: tuple[Hint, ...]
    lost_leases: int
    crashed: int
    past_deadline: int
    expired: int
    #: Ended jobs that were forgotten before their time, as Redis' memory was nearly full.
    crowded_out: int


@dataclass(frozen=True)
class Waited:
    """What came of giving a job back because of an outage."""

    #: It is queued again, or was cancelled meanwhile; else it is another worker's, or ``over``.
    kept: bool
    #: The outage has lasted for longer than a job may wait; nothing was changed.
    over: bool
    #: For how long the job has missed the service.
    seconds: float


class Ledger(JobReader):
    """The truth about every job."""

    def __init__(
        self,
        client: "redis.Redis",
        settings: LedgerSettings,
        publish: Publish = _nowhere,
        clock: str = REDIS_CLOCK,
    ) -> None:
        """Take what tells Celery of jobs; the reconciler makes up for what it fails to tell."""
        super().__init__(client, settings)
        self._scripts = Scripts(client, settings, clock)
        self._publish = publish

    # ── the front ────────────────────────────────────────────────────────────

    def accept(
        self, job: NewJob, children: Sequence[NewJob] = (), idempotency_key: str | None = None
    ) -> tuple[Job, bool]:
        """Write a job down, with its children, and return it and whether it is new.

        The same ``idempotency_key`` with the same request gives the job it gave before; with
        another request it raises ``IdempotencyConflictError``. Where too much waits already,
        ``QueueFullError``: then nothing is written.
        """
        family = [job, *(replace(child, parent_id=job.id) for child in children)]
        fields = [each.to_fields() for each in family]
        own_key = _own(idempotency_key, job) if idempotency_key else ""
        answer = self._run("accept", json.dumps(fields), own_key, _fingerprint(job))
        match answer:
            case "refused", reason:
                raise refused(reason)
            case "conflict", job_id:
                raise _used_before(job_id)
            case "existing", job_id:
                return self.get(job_id), False
        _, record, position = answer
        pairs = zip(record[::2], record[1::2], strict=True)
        return to_job(dict(pairs), tuple(each.id for each in family[1:]), position), True

    def accepted_before(self, job: NewJob, idempotency_key: str) -> Job | None:
        """Return the job that ``accept`` would give for a key that was used; None if it was not."""
        with redis_errors():
            held = self._redis.get(self._key("idempotency", _own(idempotency_key, job)))
            fingerprint = held and self._redis.hget(self._key("job", str(held)), "fingerprint")
        if not fingerprint:
            return None
        if fingerprint != _fingerprint(job):
            raise _used_before(str(held))
        return self.get(str(held))

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job, ask a running one to stop; raise ``ConflictError`` if it ended."""
        outcome, state = self._run("cancel", job_id)
        if outcome == "ended":
            raise ConflictError(f"job {job_id} has already {_ended(state)}", code="job_ended")
        return self.get(job_id)

    def revive(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again, with fresh attempts."""
        outcome, state = self._run("revive", job_id)
        if outcome == "full":
            raise refused(state)
        if outcome == "forgotten":
            raise ConflictError(
                f"the parts of job {job_id} that did not succeed are forgotten",
                code="job_not_retryable",
            )
        if outcome == "refused":
            raise ConflictError(
                f"job {job_id} is {state}; only failed and cancelled jobs are retried",
                code="job_not_retryable",
            )
        return self.get(job_id)

    # ── the worker ───────────────────────────────────────────────────────────

    def claim(self, job_id: str, owner: str, *, alone: bool = False) -> Job | None:
        """Make a queued job the owner's, under a lease; None if it is not to be had.

        A job that lost workers is to be had only by who runs it ``alone``.
        """
        if not self._run("claim", job_id, owner, uuid.uuid4().hex, int(alone)):
            return None
        return self.get(job_id)

    def renew(self, job: Job) -> str:
        """Renew the lease and return what Redis knows of the job.

        ``ok``; ``cancel``: the client asked for it; ``late``: the deadline has passed; ``lost``:
        the job is another worker's, or has ended.
        """
        return str(self._run("renew", job.id, job.fence))

    def report_progress(self, job: Job, progress: Progress) -> bool:
        """Write progress; return False, and write nothing, if the job is another worker's now."""
        return bool(self._run("report", job.id, job.fence, "progress", progress.model_dump_json()))

    def report_token(self, job: Job, number: int, text: str, event: str = "token") -> bool:
        """Append a piece of generated text, the run's ``number``-th, to the job's events, once.

        The event is ``token``, or ``thinking`` for what a model thinks before it answers.
        """
        data = json.dumps({"text": text})
        return bool(self._run("report", job.id, job.fence, event, data, number))

    def finish(
        self,
        job: Job,
        state: JobState,
        *,
        result: dict[str, Any] | None = None,
        error: ErrorInfo | None = None,
    ) -> bool:
        """End a running job; return False if it is another worker's now."""
        return bool(
            self._run(
                "finish",
                job.id,
                job.fence,
                state.value,
                json.dumps(result) if result is not None else "",
                error.model_dump_json() if error else "",
            )
        )

    def lose(self, job: Job) -> bool:
        """Say that the process which ran a job is dead, so that nobody waits for its lease."""
        return bool(self._run("lose", job.id, job.fence))

    def requeue(
        self,
        job: Job,
        *,
        delay_seconds: float = 0,
        error: ErrorInfo | None = None,
        counts: bool = True,
    ) -> bool:
        """Give a running job back, not to be claimed before the delay has passed.

        An attempt that ``counts`` uses up one of the job's; a drain does not.
        """
        return bool(
            self._run(
                "requeue",
                job.id,
                job.fence,
                round(delay_seconds * 1000),
                error.model_dump_json() if error else "",
                int(counts),
            )
        )

    def postpone(
        self, job: Job, service: str, error: ErrorInfo, asked_seconds: float = 0
    ) -> Waited:
        """Give a running job back until a service that does not answer is there again.

        The run does not count as an attempt. The next one comes after a wait that doubles from
        about a second, on top of what the service asks for. Once the service has been away for
        longer than the budget the job stays as it is, for the caller to fail.
        """
        outcome, milliseconds = self._run(
            "postpone",
            job.id,
            job.fence,
            service,
            error.detail,
            error.model_dump_json(),
            round(asked_seconds * 1000),
            random.uniform(0.5, 1),  # noqa: S311 - jitter
        )
        return Waited(str(outcome) == "postponed", str(outcome) == "over", milliseconds / 1000)

    def delegate(self, job: Job, child: NewJob | Job) -> bool:
        """Leave a running job until a child ends, a new one or one that it has.

        A child that failed or was cancelled runs again. Then the job is queued again, with fresh
        attempts; its ``awaits`` tells which child ended. Returns False if it is another worker's.
        """
        new = replace(child, parent_id=job.id) if isinstance(child, NewJob) else None
        fields = json.dumps(new.to_fields()) if new else ""
        return bool(self._run("delegate", job.id, job.fence, child.id, fields))

    # ── the reconciler ───────────────────────────────────────────────────────

    def reconcile(self) -> Reconciliation:
        """Act on every job whose time has come; any number of workers may do so at once."""
        found, hints = self._scripts.run("reconcile", RECONCILE_LIMIT)
        return Reconciliation(hints, *found)

    def abandon(self, job: Job, error: ErrorInfo) -> bool:
        """Fail a queued job that nobody will claim; return False if somebody did."""
        return bool(self._run("abandon", job.id, job.fence, error.model_dump_json()))

    def reassign(self, job: Job, queue: str) -> bool:
        """Put a queued job in another queue; return False if somebody claimed it."""
        return bool(self._run("reassign", job.id, job.fence, queue))

    def counts(self) -> Counts:
        """Return what happened so far, and what waits."""
        return to_counts(*self._run("snapshot"))

    def _run(self, name: str, *arguments: str | float) -> Any:
        answer, hints = self._scripts.run(name, *arguments)
        if hints:
            self._publish(hints)
        return answer


def _own(idempotency_key: str, job: NewJob) -> str:
    """Return a key as the submitter's own; each has keys of its own."""
    return f"{job.submitter}:{idempotency_key}"


def _used_before(job_id: str) -> IdempotencyConflictError:
    detail = f"the idempotency key was used for another request, job {job_id}"
    return IdempotencyConflictError(detail, field="Idempotency-Key")


def _fingerprint(job: NewJob) -> str:
    content = json.dumps([job.kind, job.request], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _ended(state: str) -> str:
    return "been cancelled" if state == "cancelled" else state
