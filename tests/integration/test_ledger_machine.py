"""The ledger on a real Redis does, step by step, what its model in plain Python does."""

import copy
import json
import math
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
from shared.ledger import Claimed, Ledger, NewJob, Want
from shared.ledger.schema import celery_queue
from shared.ledger.scripts import AFFINITY_PAUSE_SECONDS, Operation
from shared.settings import LedgerSettings
from tests.ledger_checks import Seen, check_counts, check_jobs, check_keys, check_lanes
from tests.ledger_model import Entry, LedgerModel

#: The present, where the test can move it.
CLOCK = "tonumber(redis.call('GET', KEYS[1] .. ':clock'))"
SETTINGS = {
    "lease_seconds": 60,
    "backoff_seconds": 2,
    "retention_seconds": 200,
    "affinity_seconds": 5,
    "max_crashes": 3,
    "outage_budget_seconds": 10,
    "quarantine_crashes": 2,
    "max_queued": 10,
    "max_queued_per_submitter": 6,
    "max_request_bytes": 3000,
}
#: Of a batch's children, and of a request that is kept apart.
PIECE, LARGE_BYTES = 2, 300
FAILURE = ErrorInfo(code="x", detail="x")
ENDS = st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
#: How many calls of the script a client makes before it dies.
LIVES = st.sampled_from([math.inf, math.inf, 0, 1, 2])
#: The models, with the seconds of a load and the jobs that a slot takes at once.
MODELS = {"one": (3.0, 1), "many": (0.0, 3)}
WANTS = st.tuples(
    st.sampled_from(["gpu@a", "gpu@b", "cpu@a"]),
    st.sampled_from([0, 1]),
    st.sampled_from([("q",), ("q", "r"), ("r", "q")]),
    st.booleans(),
    st.sampled_from([False, False, True]),
)
Wanted = tuple[str, int, tuple[str, ...], bool, bool]
CHANNELS = ("ends-1", "ends-2")


class DeadError(Exception):
    """The client died between two calls."""


class MortalLedger(Ledger):
    """A client that dies after some calls, and one whose replies are lost."""

    lives: float = math.inf
    stutters = False

    @contextmanager
    def living(self, lives: float = math.inf, *, stutters: bool = False) -> Iterator[None]:
        """Die after so many calls, or make each twice, for the length of a block."""
        self.lives, self.stutters = lives, stutters
        try:
            yield
        finally:
            self.lives, self.stutters = math.inf, False

    def _call(self, operation: Operation) -> tuple[Any, Any]:
        if self.lives == 0:
            raise DeadError
        self.lives -= 1
        if self.stutters and operation.name != "sweep":
            super()._call(operation)
        return super()._call(operation)


class LedgerMachine(RuleBasedStateMachine):
    """Clients, workers and a clock, at random."""

    client: "redis.Redis"
    #: The same Redis, for values that are not text.
    raw: "redis.Redis"

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        self.settings = LedgerSettings(prefix=f"machine-{uuid.uuid4().hex}", **SETTINGS)  # type: ignore[arg-type]
        self.model = LedgerModel(self.settings, PIECE)
        self.prefix = self.settings.prefix
        self.fences = Counter[str]()
        self.ends: dict[str, JobState] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.wants: dict[str, Want] = {}
        self.received = Counter[tuple[str, str]]()
        self.subscription = self.client.pubsub(  # type: ignore[no-untyped-call]
            ignore_subscribe_messages=True
        )
        self.subscription.subscribe(*(f"{self.prefix}-{channel}" for channel in CHANNELS))
        self.ledger = MortalLedger(self.client, self.settings, CLOCK)
        self.advance(0)

    # ── clients ──────────────────────────────────────────────────────────────

    @rule(
        target=jobs,
        submitter=st.sampled_from(["", "a", "b"]),
        priority=st.sampled_from([0, 5, 5, 9]),
        queue=st.sampled_from(["q", "q", "r"]),
        affinity=st.sampled_from(["", *MODELS]),
        padding=st.sampled_from([0, 100, 250, 400, 800]),
        lifetime=st.sampled_from([None, None, 8, 300]),
        start_within=st.sampled_from([None, None, 4]),
        key=st.sampled_from([None, None, "k"]),
        children=st.sampled_from([0, 0, 0, 1, 3, 5]),
        streams=st.booleans(),
        lives=LIVES,
    )
    def accept(  # noqa: PLR0917 - as many as a job has fields
        self,
        submitter: str,
        priority: int,
        queue: str,
        affinity: str,
        padding: int,
        lifetime: int | None,
        start_within: int | None,
        key: str | None,
        children: int,
        streams: bool,
        lives: float,
    ) -> Any:
        def new(kind: JobKind, queue: str, **changes: Any) -> NewJob:
            return NewJob(
                kind=kind,
                request={"x": "y" * padding},
                queue=queue,
                model="m",
                max_attempts=3,
                priority=priority,
                submitter=submitter,
                streams=streams,
                **changes,
            )

        limits = {
            "affinity": affinity,
            "lifetime_seconds": lifetime,
            "start_within_seconds": start_within,
        }
        if children:
            first = new(JobKind.BATCH_DOWNLOAD, "")
            others = [new(JobKind.DOWNLOAD, queue, **limits) for _ in range(children)]
        else:
            first, others = new(JobKind.DOWNLOAD, queue, **limits), []
        with self.ledger.living(lives):
            if lives == 0:
                with pytest.raises(DeadError):
                    self.ledger.accept(first, others, key)
                return multiple()
            family = [entry(first), *(entry(other, first.id) for other in others)]
            outcome, job_id = self.model.accept(family, key, f"{first.kind}{padding}")
            if outcome in {"refused", "conflict"}:
                full = (QueueFullError, InvalidInputError)
                error = full if outcome == "refused" else IdempotencyConflictError
                with pytest.raises(error):
                    self.ledger.accept(first, others, key)
                return multiple()
            if outcome == "accepted" and children and self.dies(job_id, lives):
                with pytest.raises(DeadError):
                    self.ledger.accept(first, others, key)
            else:
                job, is_new = self.ledger.accept(first, others, key)
                assert (job.id, is_new) == (job_id, outcome == "accepted")
        if outcome == "existing":
            return multiple()
        self.requests |= {job.id: job.request for job in (first, *others)}
        return multiple(*(job.id for job in family))

    def dies(self, job_id: str, lives: float) -> bool:
        """Do in the model what a client does after its first call; return whether it dies of it."""
        while (lives := lives - 1) > 0:
            if not self.model.go_on(job_id):
                return False
        return True

    @rule(job_id=jobs, lives=LIVES, stutters=st.booleans())
    def cancel(self, job_id: str, lives: float, stutters: bool) -> None:
        with self.ledger.living(lives, stutters=stutters):
            if lives == 0:
                with pytest.raises(DeadError):
                    self.ledger.cancel(job_id)
            elif job_id not in self.model.jobs:
                with pytest.raises(NotFoundError if lives > 1 else DeadError):
                    self.ledger.cancel(job_id)
            elif not self.model.cancel(job_id):
                with pytest.raises(ConflictError):
                    self.ledger.cancel(job_id)
            elif self.dies(job_id, lives):
                with pytest.raises(DeadError):
                    self.ledger.cancel(job_id)
            else:
                self.ledger.cancel(job_id)

    @rule(job_id=jobs, lives=LIVES, stutters=st.booleans())
    def revive(self, job_id: str, lives: float, stutters: bool) -> None:
        if job_id not in self.model.jobs or lives == 0:
            return
        outcome = self.model.revive(job_id)
        with self.ledger.living(lives, stutters=stutters):
            if outcome != "revived":
                expected = QueueFullError if outcome == "full" else ConflictError
                with pytest.raises(expected):
                    self.ledger.revive(job_id)
                return
            if self.dies(job_id, lives):
                with pytest.raises(DeadError):
                    self.ledger.revive(job_id)
            else:
                self.ledger.revive(job_id)

    @rule(job_id=jobs, channel=st.sampled_from(CHANNELS))
    def await_end(self, job_id: str, channel: str) -> None:
        answer, _ = self.ledger._call(Operation("await_end", (job_id, f"{self.prefix}-{channel}")))
        assert bool(answer) == self.model.await_end(job_id, f"{self.prefix}-{channel}")

    @rule(job_id=jobs)
    def follow(self, job_id: str) -> None:
        self.ledger.follow(job_id)
        if job_id in self.model.jobs:
            self.model.jobs[job_id].followed = True

    # ── workers ──────────────────────────────────────────────────────────────

    def want(self, wanted: Wanted) -> Want:
        """What a slot wants; the warm models are those that its worker reported last."""
        owner, number, queues, loads, alone = wanted
        warm = {name: MODELS[name][1] for name in self.model.warm.get(owner, {})}
        models = None if owner.startswith("cpu") else warm
        want = Want(f"{owner}/{number}", owner, queues, models, loads, alone)
        self.wants[want.slot] = want
        return want

    def check_claimed(self, want: Want, claimed: Claimed) -> Any:
        """The slot got what the model gives it, with whole requests."""
        expected, wait = self.model.claim(want)
        assert [job.id for job in claimed.jobs] == expected
        assert all(job.request == self.requests[job.id] for job in claimed.jobs)
        pause = None if wait is None else min(wait / 1000, AFFINITY_PAUSE_SECONDS)
        assert claimed.wait_seconds == pause
        return multiple(*claimed.jobs)

    @rule(target=claims, wanted=WANTS, stutters=st.booleans())
    def claim(self, wanted: Wanted, stutters: bool) -> Any:
        want = self.want(wanted)
        with self.ledger.living(stutters=stutters):
            claimed = self.ledger.claim(want)
        if stutters and claimed.wait_seconds is not None:
            self.model.claim(want)
        return self.check_claimed(want, claimed)

    @rule(target=claims, wanted=WANTS)
    def idle(self, wanted: Wanted) -> Any:
        """A slot without work takes an entry first."""
        want = self.want(wanted)
        suffix = ":alone" if want.alone else ""
        there = any(self.model.standing(queue + suffix) for queue in want.queues)
        assert self.ledger.wait_for_work(want.queues, 0.01, alone=want.alone) == there
        return self.check_claimed(want, self.ledger.claim(want))

    @rule(target=claims, slot=st.sampled_from(["gpu@a/0", "gpu@a/1", "cpu@a/0"]))
    def claim_again(self, slot: str) -> Any:
        """The reply to the slot's last claim was lost."""
        if slot not in self.wants:
            return multiple()
        return self.check_claimed(self.wants[slot], self.ledger.claim(self.wants[slot]))

    @rule(worker=st.sampled_from(["gpu@a", "gpu@b"]), names=st.sets(st.sampled_from([*MODELS])))
    def warm(self, worker: str, names: set[str]) -> None:
        loads = {name: MODELS[name][0] for name in names}
        self.ledger.renew(worker, [], loads)
        self.model.warm[worker] = {name: round(load * 1000) for name, load in loads.items()}

    @rule(job=claims)
    def renew(self, job: Job) -> None:
        if job.id in self.model.jobs:
            answer = self.model.renew(job.id, job.fence, job.nonce)
            assert self.ledger.renew("w", [job]) == {job.id: answer}

    @rule(job=claims)
    def report(self, job: Job) -> None:
        holds = job.id in self.model.jobs and self.model.holds(job.id, job.fence, job.nonce)
        assert self.ledger.report_text(job, 1, "x") == holds

    @rule(target=claims, job=claims, state=ENDS, wanted=st.none() | WANTS, stutters=st.booleans())
    def finish(self, job: Job, state: JobState, wanted: Wanted | None, stutters: bool) -> Any:
        if job.id not in self.model.jobs:
            return multiple()
        want = self.want(wanted) if wanted is not None else None
        with self.ledger.living(stutters=stutters):
            ended = self.ledger.finish(job, state, error=FAILURE, want=want)
        assert ended.kept == self.model.finish(job.id, job.fence, job.nonce, state)
        if want is None:
            return multiple()
        if stutters and ended.claimed.wait_seconds is not None:
            self.model.claim(want)
        return self.check_claimed(want, ended.claimed)

    @rule(target=claims, job=claims, delay=st.sampled_from([0, 3]), counts=st.booleans())
    def requeue(self, job: Job, delay: int, counts: bool) -> Any:
        if job.id not in self.model.jobs:
            return multiple()
        want = self.want(("cpu@a", 0, ("q",), True, False))
        back = self.ledger.requeue(job, delay_seconds=delay, counts=counts, want=want)
        run = (job.id, job.fence, job.nonce)
        assert back.kept == self.model.requeue(*run, delay * 1000, counts=counts)
        return self.check_claimed(want, back.claimed)

    @rule(job=claims)
    def postpone(self, job: Job) -> None:
        if job.id not in self.model.jobs:
            return
        waited = self.ledger.postpone(job, "hub", FAILURE)
        available = round(self.ledger.get(job.id).available_at.timestamp() * 1000)
        outcome = "kept" if waited.kept else "over" if waited.over else "lost"
        assert outcome == self.model.postpone(job.id, job.fence, job.nonce, available)

    @rule(job=claims)
    def lose(self, job: Job) -> None:
        if job.id in self.model.jobs:
            assert self.ledger.lose(job) == self.model.lose(job.id, job.fence, job.nonce)

    @rule(wanted=WANTS)
    def crash(self, wanted: Wanted) -> None:
        """A worker takes jobs, and dies of them."""
        want = self.want(wanted)
        claimed = self.ledger.claim(want)
        self.check_claimed(want, claimed)
        for job in claimed.jobs:
            assert self.ledger.lose(job)
            assert self.model.lose(job.id, job.fence, job.nonce)

    # ── time and faults ──────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([1, 3, 6, 31, 61, 250, -1, -31, -400]))
    def advance(self, seconds: int) -> None:
        """The clock goes on, or steps."""
        self.model.now += seconds * 1000
        self.client.set(f"{self.prefix}:2:clock", self.model.now)

    @rule()
    def reconcile(self) -> None:
        self.model.reconcile()
        self.ledger.reconcile()

    @rule()
    def let_leases_end(self) -> None:
        """Time goes by while reconcilers work."""
        for _ in range(4):
            self.advance(20)
            self.reconcile()

    @rule()
    def let_an_age_pass(self) -> None:
        """What has ended is forgotten, but for parts that their batch still asks for."""
        self.advance(201)
        self.reconcile()

    @rule(
        queue=st.sampled_from(["q", "r", "q:alone"]), how=st.sampled_from(["take", "drop", "junk"])
    )
    def damage(self, queue: str, how: str) -> None:
        """Something happens to the entries that idle slots wait for."""
        if not self.client.sismember(f"{self.prefix}:2:queues", queue.partition(":")[0]):
            return
        entries = celery_queue(self.settings, queue)
        if how == "take":
            self.client.rpop(entries)
        elif how == "drop":
            self.client.delete(entries)
        else:
            self.client.lpush(entries, "not json", "{}")
        self.reconcile()

    @rule(target=claims, wanted=WANTS)
    def fail_over(self, wanted: Wanted) -> Any:
        """The new primary does not know of a claim; the next one has the same fence."""
        keys = list(self.raw.keys(f"{self.prefix}*"))
        kept = {key: (self.raw.dump(key) or b"", max(self.raw.pttl(key), 0)) for key in keys}
        before, want = copy.deepcopy(self.model), self.want(wanted)
        zombies = self.check_claimed(want, self.ledger.claim(want))
        before.published = self.model.published
        self.model, self.fences, self.ends = before, Counter(), {}
        self.raw.delete(*self.raw.keys(f"{self.prefix}*"))
        for key, (value, milliseconds) in kept.items():
            self.raw.restore(key, milliseconds, value)
        return zombies

    # ── what always holds ────────────────────────────────────────────────────

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        seen = Seen(self.client, self.prefix)
        check_jobs(seen, self.model)
        check_lanes(seen, self.model)
        check_counts(seen, self.model, self.ledger.counts())
        check_keys(seen, self.model)

    @invariant()
    def fences_only_grow_and_ends_are_final(self) -> None:
        jobs = self.model.jobs
        for job in jobs.values():
            assert job.fence >= self.fences[job.id]
            self.fences[job.id] = job.fence
        for job_id, end in self.ends.items():
            is_new = job_id not in jobs or job_id in self.model.revived
            assert is_new or jobs[job_id].state is end
        self.model.revived.clear()
        self.ends = {job.id: job.state for job in jobs.values() if job.state.terminal}

    @invariant()
    def every_waiter_is_told_once(self) -> None:
        while True:
            missing = self.received.total() < self.model.published.total()
            message = self.subscription.get_message(timeout=10 if missing else 0)
            if message is None:
                break
            said = json.loads(message["data"])
            # Without a record, the process reads the job: a batch, or one that is too large.
            flat = said.get("record", ["state", self.ledger.get(said["id"]).state])
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            assert JobState(fields["state"]).terminal
            self.received[message["channel"], said["id"]] += 1
        assert self.received == self.model.published

    def teardown(self) -> None:
        self.subscription.close()
        self.client.flushdb()


def entry(job: NewJob, parent: str | None = None) -> Entry:
    def ms(seconds: float | None) -> int | None:
        return None if seconds is None else round(seconds * 1000)

    size = len(json.dumps(job.request, separators=(",", ":")))
    return Entry(
        id=job.id,
        submitter=job.submitter,
        priority=job.priority,
        queue=job.queue,
        size=size,
        affinity=job.affinity,
        cut=size > LARGE_BYTES,
        followed=job.streams,
        lifetime=ms(job.lifetime_seconds),
        start_within=ms(job.start_within_seconds),
        parent=parent,
    )


@pytest.fixture
def machine(
    redis_client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[LedgerMachine]]:
    """The machine on the session's Redis, in a database of its own."""
    monkeypatch.setattr("shared.ledger.scripts.PIECE", PIECE)
    monkeypatch.setattr("shared.ledger.queries.PIECE", PIECE)
    monkeypatch.setattr("shared.ledger.record.LARGE_REQUEST_BYTES", LARGE_BYTES)
    monkeypatch.setattr("shared.ledger.record._SHOWN_CHARACTERS", 100)
    address = {**redis_client.connection_pool.connection_kwargs, "db": 7}
    pools = [
        redis.ConnectionPool(**(address | {"decode_responses": is_text}))
        for is_text in (True, False)
    ]
    client, raw = (redis.Redis(connection_pool=pool) for pool in pools)
    yield type("Machine", (LedgerMachine,), {"client": client, "raw": raw})
    for pool in pools:
        pool.disconnect()


@pytest.mark.parametrize("examples", [60, pytest.param(300, marks=pytest.mark.long)])
def test_the_ledger_does_what_its_model_does(machine: type[LedgerMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
