"""The ledger for workers and tools: it blocks until Redis answers."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import redis
from redis.exceptions import NoScriptError

from shared.errors import ErrorInfo
from shared.jobs import Job, JobState, Progress
from shared.ledger.claims import Claimed, Ended, Postponed, Want
from shared.ledger.connection import redis_errors
from shared.ledger.counts import Counts
from shared.ledger.listings import Filter
from shared.ledger.queries import Queries
from shared.ledger.record import NewJob, Record
from shared.ledger.schema import celery_queue
from shared.ledger.scripts import REDIS_CLOCK, Commands, Operation, Scripts, Steps
from shared.settings import LedgerSettings

T = TypeVar("T")
#: Jobs of each sort that the reconciler looks at in one call: Redis serves nobody else meanwhile.
RECONCILED = 50
#: The most calls of one pass.
RECONCILE_CALLS = 40
#: The ends of a run in which the slot claims nothing.
_NOTHING = Claimed()
#: All jobs.
_ALL = Filter()


@dataclass(frozen=True)
class Reconciliation:
    """What one pass of the reconciler found."""

    lost_leases: int
    crashed: int
    past_deadline: int
    expired: int
    #: Ended jobs that were forgotten before their time, as Redis' memory was nearly full.
    crowded_out: int


class Ledger:
    """The truth about every job."""

    def __init__(
        self, client: "redis.Redis", settings: LedgerSettings, clock: str = REDIS_CLOCK
    ) -> None:
        self._redis = client
        self._queries = Queries(settings)
        self._settings = settings
        self._scripts = Scripts(settings, clock)

    # ── clients ──────────────────────────────────────────────────────────────

    def accept(
        self, job: NewJob, children: Sequence[NewJob] = (), idempotency_key: str | None = None
    ) -> tuple[Job, bool]:
        """Write a job down, with its children, and return it and whether it is new.

        The same ``idempotency_key`` with the same request gives the job it gave before; with
        another request it raises ``IdempotencyConflictError``. Where too much waits already,
        ``QueueFullError``: then nothing is written.
        """
        return self._do(self._queries.accept(job, children, idempotency_key))

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job, ask a running one to stop; raise ``ConflictError`` if it ended."""
        return self._do(self._queries.cancel(job_id))

    def revive(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again, with fresh attempts."""
        return self._do(self._queries.revive(job_id))

    def get(self, job_id: str) -> Job:
        """Return a job; raise ``NotFoundError`` if it is unknown."""
        return self._do(self._queries.get(job_id))

    def page(
        self, wanted: Filter = _ALL, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Job], str | None]:
        """Return jobs that fit, newest first, and the cursor of the next page if there is one.

        Requests and results of more than 4 KB are left out.
        """
        return self._do(self._queries.page(wanted, limit, cursor))

    def waiting(self, queue: str, limit: int = 100) -> list[Job]:
        """Return the first jobs that wait in a queue, as a page shows them."""
        return self._do(self._queries.waiting(queue, limit))

    def ended(self, job_id: str) -> bool:
        """Return whether a job has ended, or is forgotten."""
        return self._do(self._queries.ended(job_id))

    def follow(self, job_id: str) -> None:
        """Have the job's events written; the first ones say how it is now."""
        self._do(self._queries.follow(job_id))

    def queued(self, queue: str) -> int:
        """Return how many jobs wait in a queue."""
        return self._do(self._queries.queued(queue))

    def counts(self) -> Counts:
        """Return what happened so far, and what waits."""
        return self._do(self._queries.counts())

    def ping(self) -> None:
        """Raise ``UnavailableError`` if Redis does not answer."""
        self._do(self._queries.ping())

    # ── workers ──────────────────────────────────────────────────────────────

    def wait_for_work(self, queues: Sequence[str], seconds: float, *, alone: bool = False) -> bool:
        """Wait until a job may be there for an idle slot, at most so long; return whether."""
        suffix = ":alone" if alone else ""
        lists = [celery_queue(self._settings, queue + suffix) for queue in queues]
        with redis_errors():
            return self._redis.brpop(lists, timeout=seconds) is not None

    def claim(self, want: Want) -> Claimed:
        """Give a slot what it can take, under a lease."""
        return self._run("claim", want=want)[1]

    def finish(
        self,
        job: Job,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: ErrorInfo | None = None,
        want: Want | None = None,
    ) -> Ended:
        """End a running job and claim what is wanted next."""
        written = json.dumps(result, allow_nan=False) if result is not None else ""
        error_text = error.model_dump_json() if error else ""
        return self._end("finish", job, state.value, written, error_text, want=want)

    def lose(self, job: Job) -> bool:
        """Write that the process which ran a job is dead, so that nobody waits for its lease."""
        return self._end("lose", job).kept

    def requeue(
        self,
        job: Job,
        *,
        delay_seconds: float = 0,
        error: ErrorInfo | None = None,
        counts: bool = True,
        want: Want | None = None,
    ) -> Ended:
        """Give a running job back, not to be claimed before the delay has passed.

        An attempt that ``counts`` uses up one of the job's; a drain does not.
        """
        error_text = error.model_dump_json() if error else ""
        delay = round(delay_seconds * 1000)
        return self._end("requeue", job, delay, error_text, int(counts), want=want)

    def postpone(
        self,
        job: Job,
        service: str,
        error: ErrorInfo,
        asked_seconds: float = 0,
        want: Want | None = None,
    ) -> Postponed:
        """Give a running job back until a service that does not answer is there again.

        The run does not count as an attempt. The next one comes after a wait that doubles from
        about a second, on top of what the service asks for. Once the service has been away for
        longer than the budget the job stays as it is, for the caller to fail.
        """
        (outcome, milliseconds), claimed = self._run(
            "postpone",
            *_run_of(job),
            service,
            error.detail,
            error.model_dump_json(),
            round(asked_seconds * 1000),
            random.uniform(0.5, 1),  # noqa: S311 - jitter
            want=want,
        )
        return Postponed(outcome == "postponed", claimed, outcome == "over", milliseconds / 1000)

    def delegate(self, job: Job, child: NewJob | Job, want: Want | None = None) -> Ended:
        """Leave a running job until a child ends, a new one or one that it has.

        A child that failed or was cancelled runs again. Then the job is queued again, with fresh
        attempts; its ``awaits`` tells which child ended.
        """
        text = ""
        if isinstance(child, NewJob):
            child.parent_id = job.id
            text = json.dumps(child.encoded())
        return self._end("delegate", job, child.id, text, want=want)

    def renew(
        self, worker: str, jobs: Sequence[Job], warm: Mapping[str, float] | None = None
    ) -> dict[str, str]:
        """Renew the leases of a worker's jobs; return what Redis knows of each, by its id.

        ``ok``; ``cancel``: the client asked for it; ``late``: the deadline has passed; ``lost``:
        the job is another worker's, or has ended. ``warm`` are the affinities of the models that
        are warm at the worker, each with the seconds that a load takes (0: unknown); None if it
        has no models at all. A worker that leaves has none.
        """
        runs = json.dumps([[str(part) for part in _run_of(job)] for job in jobs])
        loads = {name: round(seconds * 1000) for name, seconds in (warm or {}).items()}
        reported = "" if warm is None else json.dumps(loads)
        answers, _ = self._run("renew", worker, runs, reported)
        return dict(zip((job.id for job in jobs), answers, strict=True))

    def report_progress(self, job: Job, progress: Progress) -> bool:
        """Write progress; return False, and write nothing, if the job is another worker's now."""
        return self._report(job, "progress", progress.model_dump_json(), "")

    def report_text(self, job: Job, number: int, text: str, event: str = "token") -> bool:
        """Append generated text, the run's ``number``-th, to the job's events, once.

        The event is ``token``, or ``thinking`` for what a model thinks before it answers.
        """
        return self._report(job, event, json.dumps({"text": text}), number)

    # ── reconcilers ──────────────────────────────────────────────────────────

    def reconcile(self) -> Reconciliation:
        """Act on every job whose time has come; any number of workers may do so at once."""
        found = [0] * len(fields(Reconciliation))
        for _ in range(RECONCILE_CALLS):
            (counted, parents, more), _ = self._run("reconcile", RECONCILED)
            found = [one + other for one, other in zip(found, counted, strict=True)]
            for parent in parents:
                while self._run("sweep", parent)[0]:
                    pass
            if not more:
                break
        return Reconciliation(*found)

    def take_untold(self, limit: int = 100) -> list[Job]:
        """Return jobs that did not end by a word of their workers, as a page shows them.

        Each is returned once, to one caller, for it to tell Celery.
        """
        return self._do(self._queries.take_untold(limit))

    def abandon(self, job: Job, error: ErrorInfo) -> bool:
        """Fail a queued job that nobody will claim; return False if somebody did."""
        return bool(self._run("abandon", job.id, job.fence, error.model_dump_json())[0])

    def reassign(self, job: Job, queue: str) -> bool:
        """Put a queued job in another queue; return False if somebody claimed it."""
        return bool(self._run("reassign", job.id, job.fence, queue)[0])

    def _report(self, job: Job, event: str, data: str, number: int | str) -> bool:
        return self._end("report", job, event, data, number).kept

    def _end(self, name: str, job: Job, *arguments: str | float, want: Want | None = None) -> Ended:
        kept, claimed = self._run(name, *_run_of(job), *arguments, want=want)
        return Ended(bool(kept), claimed)

    def _run(
        self, name: str, *arguments: str | float, want: Want | None = None
    ) -> tuple[Any, Claimed]:
        answer, claimed = self._call(Operation(name, arguments, want))
        return answer, _claimed(claimed)

    def _do(self, steps: Steps[T]) -> T:
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                answer = self._call(step)[0] if isinstance(step, Operation) else self._send(step)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return] # typeshed has Any here

    def _call(self, operation: Operation) -> tuple[Any, Any]:
        source, digest = self._scripts.find(operation.name)
        arguments = (self._scripts.prefix, *self._scripts.arguments(operation))
        with redis_errors():
            try:
                answer, claimed = self._redis.evalsha(digest, 1, *arguments)
            except NoScriptError:
                answer, claimed = self._redis.eval(source, 1, *arguments)
        return answer, claimed

    def _send(self, step: Commands) -> list[Any]:
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for command in step.commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]
            return list(pipe.execute())


def _run_of(job: Job) -> tuple[str, int, str]:
    """Return what identifies a run of a job."""
    return job.id, job.fence, job.nonce


def _claimed(answer: Any) -> Claimed:
    if not answer:
        return _NOTHING
    records, wait = answer
    jobs = tuple(Record.of(record).job() for record in records)
    return Claimed(jobs, wait / 1000 if wait >= 0 else None)
