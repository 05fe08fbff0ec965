"""The ledger's operations; each that writes is one atomic Lua call of a script beside this."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import redis
from redis.exceptions import NoScriptError

from shared.errors import (
    ConflictError,
    ErrorInfo,
    IdempotencyConflictError,
    NotFoundError,
)
from shared.jobs import Job, JobKind, JobState, Progress
from shared.ledger.connection import redis_errors
from shared.ledger.record import NewJob, to_job
from shared.settings import LedgerSettings

#: A job that does not stop at its deadline is taken from its worker after this time.
DEADLINE_GRACE_SECONDS = 10
#: Jobs looked at in one pass of the reconciler.
RECONCILE_LIMIT = 500
#: Jobs read at most to fill one page of a listing that filters by more than its index.
SCAN_LIMIT = 2000


@dataclass(frozen=True)
class Reconciliation:
    """What one pass of the reconciler found."""

    #: Queued jobs whose hint may be lost.
    unhinted: tuple[str, ...]
    lost_leases: int
    crashed: int
    past_deadline: int
    expired: int


class Ledger:
    """The truth about every job."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._settings = settings
        self._prefix = settings.prefix
        self._preamble = _constants(settings) + _source("prelude")
        self._scripts: dict[str, tuple[str, str]] = {}

    # ── the front ────────────────────────────────────────────────────────────

    def accept(
        self, job: NewJob, children: Sequence[NewJob] = (), idempotency_key: str | None = None
    ) -> tuple[Job, bool]:
        """Write a job down, with its children, and return it and whether it is new.

        The same ``idempotency_key`` with the same request gives the job it gave before; with
        another request it raises ``IdempotencyConflictError``.
        """
        fields = [job.to_fields(), *(child.to_fields(parent_id=job.id) for child in children)]
        outcome, job_id = self._run(
            "accept", json.dumps(fields), idempotency_key or "", _fingerprint(job)
        )
        if outcome == "conflict":
            raise IdempotencyConflictError(
                f"the idempotency key was used for another request, job {job_id}",
                field="Idempotency-Key",
            )
        return self.get(job_id), outcome == "accepted"

    def get(self, job_id: str) -> Job:
        """Return a job; raise ``NotFoundError`` if it is unknown."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self._key("job", job_id))
            pipe.zrange(self._key("children", job_id), 0, -1)
            record, children = pipe.execute()
        if not record:
            raise NotFoundError(f"there is no job {job_id!r}", code="job_not_found")
        return to_job(record, tuple(children))

    def page(
        self,
        *,
        state: JobState | None = None,
        kind: JobKind | None = None,
        model: str | None = None,
        parent_id: str | None = None,
        submitter: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Return jobs that fit, newest first, and the cursor of the next page if there is one."""
        wanted = {
            "state": state,
            "kind": kind,
            "model": model,
            "parent_id": parent_id,
            "submitter": submitter,
        }
        criteria = {name: str(value) for name, value in wanted.items() if value is not None}
        index, before, found = self._index(criteria), cursor, list[Job]()
        for _ in range(SCAN_LIMIT // max(limit, 1)):
            ids = self._before(index, before, limit)
            for job_id, record in zip(ids, self._records(ids), strict=True):
                before = job_id
                if record and all(record.get(name) == value for name, value in criteria.items()):
                    found.append(to_job(record))
                if len(found) == limit:
                    return found, before
            if len(ids) < limit:
                return found, None
        return found, before

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job, ask a running one to stop; raise ``ConflictError`` if it ended."""
        outcome, state = self._run("cancel", job_id)
        if outcome == "ended":
            raise ConflictError(f"job {job_id} has already {_ended(state)}", code="job_ended")
        return self.get(job_id)

    def revive(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again, with fresh attempts."""
        outcome, state = self._run("revive", job_id)
        if outcome == "refused":
            raise ConflictError(
                f"job {job_id} is {state}; only failed and cancelled jobs are retried",
                code="job_not_retryable",
            )
        return self.get(job_id)

    def ended(self, job_id: str) -> bool:
        """Return whether a job has ended, or is forgotten."""
        with redis_errors():
            state = self._redis.hget(self._key("job", job_id), "state")
        return state is None or JobState(str(state)).terminal

    def ping(self) -> None:
        """Raise ``UnavailableError`` if Redis does not answer."""
        with redis_errors():
            self._redis.ping()

    # ── the worker ───────────────────────────────────────────────────────────

    def claim(self, job_id: str, owner: str) -> Job | None:
        """Make a queued job the owner's, under a lease; None if it is not to be had."""
        if not self._run("claim", job_id, owner, uuid.uuid4().hex):
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

    def report_token(self, job: Job, text: str) -> bool:
        """Append a piece of generated text to the job's events."""
        return bool(self._run("report", job.id, job.fence, "token", json.dumps({"text": text})))

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

    # ── the reconciler ───────────────────────────────────────────────────────

    def reconcile(self) -> Reconciliation:
        """Act on every job whose time has come; any number of workers may do so at once."""
        unhinted, lost, crashed, late, expired = self._run("reconcile", RECONCILE_LIMIT)
        return Reconciliation(tuple(unhinted), lost, crashed, late, expired)

    def queued(self, queue: str) -> int:
        """Return how many jobs wait in a queue."""
        with redis_errors():
            return int(self._redis.zcard(self._key("ready", queue)))

    # ── inside ───────────────────────────────────────────────────────────────

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _index(self, criteria: dict[str, str]) -> str:
        if parent := criteria.get("parent_id"):
            return self._key("children", parent)
        for name in ("submitter", "model", "state", "kind"):
            if value := criteria.get(name):
                return self._key("by", name, value)
        return self._key("jobs")

    def _before(self, index: str, cursor: str | None, limit: int) -> list[str]:
        newest = f"({cursor}" if cursor else "+"
        with redis_errors():
            return [str(id_) for id_ in self._redis.zrevrangebylex(index, newest, "-", 0, limit)]

    def _records(self, ids: Sequence[str]) -> list[dict[str, str]]:
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in ids:
                pipe.hgetall(self._key("job", job_id))
            return list(pipe.execute())

    def _run(self, name: str, *arguments: str | float) -> Any:
        if name not in self._scripts:
            source = self._preamble + _source(name)
            digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            self._scripts[name] = (source, digest)
        source, digest = self._scripts[name]
        with redis_errors():
            try:
                return self._redis.evalsha(digest, 1, self._prefix, *arguments)
            except NoScriptError:
                return self._redis.eval(source, 1, self._prefix, *arguments)


def _constants(settings: LedgerSettings) -> str:
    milliseconds = {
        "lease": settings.lease_seconds,
        "republish": settings.republish_seconds,
        "backoff": settings.backoff_seconds,
        "retention": settings.retention_seconds,
        "grace": DEADLINE_GRACE_SECONDS,
    }
    constants = {name: round(seconds * 1000) for name, seconds in milliseconds.items()}
    constants |= {"max_crashes": settings.max_crashes, "events_max": settings.events_max}
    return "".join(f"local {name} = {value}\n" for name, value in constants.items())


def _source(name: str) -> str:
    return resources.files("shared.ledger").joinpath(f"{name}.lua").read_text("utf-8")


def _fingerprint(job: NewJob) -> str:
    content = json.dumps([job.kind, job.request], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _ended(state: str) -> str:
    return "been cancelled" if state == "cancelled" else state
