"""The ledger on a real Redis does, step by step, what its model in plain Python does."""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from shared.errors import (
    ConflictError,
    ErrorInfo,
    IdempotencyConflictError,
    InvalidInputError,
    NotFoundError,
    QueueFullError,
)
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Hint, Ledger, NewJob
from shared.settings import LedgerSettings
from tests.ledger_checks import Seen, check_counts, check_jobs, check_keys, check_lanes
from tests.ledger_model import Entry, LedgerModel

#: The present, where the test can move it.
CLOCK = "tonumber(redis.call('GET', KEYS[1] .. ':clock'))"
SETTINGS = {
    "lease_seconds": 10,
    "republish_seconds": 5,
    "backoff_seconds": 2,
    "retention_seconds": 20,
    "max_crashes": 3,
    "outage_budget_seconds": 10,
    "quarantine_crashes": 2,
    "window": 2,
    "max_queued": 10,
    "max_queued_per_submitter": 6,
    "max_request_bytes": 1500,
}
FAILURE = ErrorInfo(code="x", detail="x")
ENDS = st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])


class LedgerMachine(RuleBasedStateMachine):
    """Clients, workers and a clock, at random."""

    client: "redis.Redis"

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        config = LedgerSettings(prefix=f"machine-{uuid.uuid4().hex}", **SETTINGS)  # type: ignore[arg-type]
        self.model = LedgerModel(config)
        self.prefix = config.prefix
        #: Messages in Celery's queue, the oldest first.
        self.broker: list[str] = []
        self.fences = Counter[str]()
        self.ends: dict[str, JobState] = {}
        self.ledger = Ledger(self.client, config, self.publish, CLOCK)
        self.advance(0)

    def publish(self, hints: Sequence[Hint]) -> None:
        self.broker += [hint.id for hint in hints]

    # ── clients ──────────────────────────────────────────────────────────────

    @rule(
        target=jobs,
        submitter=st.sampled_from(["", "a", "b"]),
        priority=st.sampled_from([0, 4, 5, 9]),
        padding=st.integers(0, 400),
        lifetime=st.sampled_from([None, None, 8, 30]),
        start_within=st.sampled_from([None, None, 4]),
        key=st.sampled_from([None, "k"]),
        children=st.sampled_from([0, 0, 1, 3]),
    )
    def accept(
        self,
        submitter: str,
        priority: int,
        padding: int,
        lifetime: int | None,
        start_within: int | None,
        key: str | None,
        children: int,
    ) -> Any:
        first, *others = (
            NewJob(
                kind=JobKind.DOWNLOAD if place or not children else JobKind.BATCH_DOWNLOAD,
                request={"x": "y" * padding},
                queue="downloads" if place or not children else "",
                model="m",
                max_attempts=3,
                priority=priority,
                lifetime_seconds=lifetime if place or not children else None,
                start_within_seconds=start_within if place or not children else None,
                submitter=submitter,
            )
            for place in range(children + 1)
        )
        family = [entry(first), *(entry(other, first.id) for other in others)]
        outcome, job_id = self.model.accept(family, key, f"{first.kind}{padding}")
        if outcome == "refused":
            with pytest.raises((QueueFullError, InvalidInputError)):
                self.ledger.accept(first, others, key)
            return multiple()
        if outcome == "conflict":
            with pytest.raises(IdempotencyConflictError):
                self.ledger.accept(first, others, key)
            return multiple()
        job, is_new = self.ledger.accept(first, others, key)
        assert (job.id, is_new) == (job_id, outcome == "accepted")
        return multiple(*(each.id for each in family if is_new))

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        if job_id not in self.model.jobs:
            with pytest.raises(NotFoundError):
                self.ledger.cancel(job_id)
        elif self.model.cancel(job_id):
            self.ledger.cancel(job_id)
        else:
            with pytest.raises(ConflictError):
                self.ledger.cancel(job_id)

    @rule(job_id=jobs)
    def revive(self, job_id: str) -> None:
        if job_id not in self.model.jobs:
            return
        outcome = self.model.revive(job_id)
        if outcome == "revived":
            self.ends = {}
            self.ledger.revive(job_id)
        else:
            expected = QueueFullError if outcome == "full" else ConflictError
            with pytest.raises(expected):
                self.ledger.revive(job_id)

    # ── workers ──────────────────────────────────────────────────────────────

    @rule(target=claims, job_id=jobs, alone=st.booleans())
    def claim(self, job_id: str, alone: bool) -> Any:
        return self.claimed(job_id, alone=alone)

    @rule(target=claims)
    def consume(self) -> Any:
        """A worker takes the next message, and does what the runner does."""
        if not self.broker:
            return multiple()
        job_id = self.broker.pop(0)
        return self.claimed(job_id, alone=self.ledger.quarantined(job_id))

    def claimed(self, job_id: str, *, alone: bool) -> Any:
        expected = self.model.claim(job_id, alone=alone)
        job = self.ledger.claim(job_id, "w", alone=alone)
        assert (job is not None) == expected
        return multiple() if job is None else multiple(job)

    @rule(job=claims)
    def renew(self, job: Job) -> None:
        if job.id in self.model.jobs:
            assert self.ledger.renew(job) == self.model.renew(job.id, job.fence)

    @rule(job=claims)
    def report(self, job: Job) -> None:
        holds = job.id in self.model.jobs and self.model.holds(job.id, job.fence)
        assert self.ledger.report_token(job, 1, "x") == holds

    @rule(job=claims, state=ENDS)
    def finish(self, job: Job, state: JobState) -> None:
        if job.id in self.model.jobs:
            counts = self.ledger.finish(job, state, error=FAILURE)
            assert counts == self.model.finish(job.id, job.fence, state)

    @rule(job=claims, delay=st.sampled_from([0, 3]), counts=st.booleans())
    def requeue(self, job: Job, delay: int, counts: bool) -> None:
        if job.id in self.model.jobs:
            back = self.ledger.requeue(job, delay_seconds=delay, counts=counts)
            assert back == self.model.requeue(job.id, job.fence, delay * 1000, counts=counts)

    @rule(job=claims)
    def postpone(self, job: Job) -> None:
        if job.id not in self.model.jobs:
            return
        waited = self.ledger.postpone(job, "hub", FAILURE)
        available = round(self.ledger.get(job.id).available_at.timestamp() * 1000)
        outcome = "kept" if waited.kept else "over" if waited.over else "lost"
        assert outcome == self.model.postpone(job.id, job.fence, available)

    @rule(job=claims)
    def lose(self, job: Job) -> None:
        if job.id in self.model.jobs:
            assert self.ledger.lose(job) == self.model.lose(job.id, job.fence)

    @rule(job_id=jobs)
    def crash(self, job_id: str) -> None:
        """A worker takes a job, and dies of it."""
        if self.model.claim(job_id, alone=True):
            job = self.ledger.claim(job_id, "w", alone=True)
            assert job is not None
            assert self.ledger.lose(job)
            assert self.model.lose(job.id, job.fence)
        else:
            assert self.ledger.claim(job_id, "w", alone=True) is None

    # ── time ─────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([1, 3, 6, 11, 40]))
    def advance(self, seconds: int) -> None:
        self.model.now += seconds * 1000
        self.client.set(f"{self.prefix}:clock", self.model.now)

    @rule()
    def reconcile(self) -> None:
        self.model.reconcile()
        self.publish(self.ledger.reconcile().hints)

    @rule()
    def let_an_age_pass(self) -> None:
        """What has ended is forgotten, but for parts that their batch still asks for."""
        self.advance(21)
        self.reconcile()

    @rule()
    def lose_the_broker(self) -> None:
        """Celery's database is flushed: all that is hinted is hinted again."""
        self.broker = []
        self.advance(5)
        self.reconcile()
        assert set(self.broker) >= {job.id for job in self.model.jobs.values() if job.hinted}

    # ── what always holds ────────────────────────────────────────────────────

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        seen = Seen(self.client, self.prefix)
        check_jobs(seen, self.model)
        check_lanes(seen, self.model)
        check_counts(seen, self.model, self.ledger.counts())
        check_keys(seen, self.model)
        hinted = {job.id for job in self.model.jobs.values() if job.hinted}
        assert hinted <= set(self.broker), "Celery was told"

    @invariant()
    def fences_only_grow_and_ends_are_final(self) -> None:
        jobs = self.model.jobs
        for job in jobs.values():
            assert job.fence >= self.fences[job.id]
            self.fences[job.id] = job.fence
        for job_id, end in self.ends.items():
            assert job_id not in jobs or jobs[job_id].state is end
        self.ends = {job.id: job.state for job in jobs.values() if job.state.terminal}

    def teardown(self) -> None:
        self.client.flushdb()


def entry(job: NewJob, parent: str | None = None) -> Entry:
    def ms(seconds: float | None) -> int | None:
        return None if seconds is None else round(seconds * 1000)

    return Entry(
        id=job.id,
        submitter=job.submitter,
        priority=job.priority,
        queue=job.queue,
        size=len(str(job.to_fields()["request"])),
        lifetime=ms(job.lifetime_seconds),
        start_within=ms(job.start_within_seconds),
        parent=parent,
    )


@pytest.fixture
def machine(redis_client: "redis.Redis") -> Iterator[type[LedgerMachine]]:
    """The machine on the session's Redis, in a database of its own."""
    client = redis.Redis(
        connection_pool=redis.ConnectionPool(
            **{**redis_client.connection_pool.connection_kwargs, "db": 7}
        )
    )
    yield type("Machine", (LedgerMachine,), {"client": client})
    client.connection_pool.disconnect()
    client.close()


def test_the_ledger_does_what_its_model_does(machine: type[LedgerMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
