"""The slots of a worker: claims, what happens to them at a shutdown, and what a job costs."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
import redis

from shared.errors import UnavailableError
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Claimed, Ledger, Want
from shared.settings import LedgerSettings
from tests.claims import download, entries
from tests.processes import wait_until
from workers.context import JobContext, Work
from workers.process.heartbeat import Heartbeat
from workers.process.runner import Runner, RunOutcome
from workers.process.slots import Slots


class Ends:
    """What became of the jobs, in order."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def started(self, job: Job) -> None:
        pass

    def left(self, job: Job, outcome: RunOutcome, seconds: float) -> None:  # noqa: ARG002
        self.states.append(outcome.state)


class Models:
    """Models that are warm because a test says so."""

    def __init__(self, warm: Mapping[str, int], *, loads: bool = True) -> None:
        self.warm = warm
        self.loads = loads

    def warm_models(self) -> Mapping[str, int]:
        return self.warm

    def load_seconds(self) -> Mapping[str, float]:
        return dict.fromkeys(self.warm, 1.0)

    def may_load(self) -> bool:
        return self.loads

    def on_change(self, callback: Callable[[], None]) -> None:
        pass


class Bench:
    """A ledger, and slots whose work each test brings."""

    def __init__(self, ledger: Ledger, settings: LedgerSettings) -> None:
        self.ledger = ledger
        self.settings = settings
        self.heartbeat = Heartbeat("cpu@a", ledger, 0.05, lambda: None)
        self.ends = Ends()
        self.slots: Slots | None = None
        threading.Thread(target=self.heartbeat.run, daemon=True).start()

    def submit(self, **changes: Any) -> str:
        fields: dict[str, Any] = {"request": {}, "max_attempts": 2} | changes
        return self.ledger.accept(download("m", **fields))[0].id

    def start(self, work: Work, number: int = 1, models: Models | None = None) -> Slots:
        runner = Runner(self.ledger, self.heartbeat, {JobKind.DOWNLOAD: work}, self.settings)
        want = Want(slot="cpu@a/", owner="cpu@a", queues=("downloads",))
        self.slots = Slots(want, number, self.ledger, self.heartbeat, runner, self.ends, models)
        self.slots.start()
        return self.slots

    def ended(self, *jobs: str) -> list[Job]:
        wait_until(lambda: all(map(self.ledger.ended, jobs)), what="the jobs have ended")
        return [self.ledger.get(job) for job in jobs]

    def close(self) -> None:
        if self.slots is not None:
            self.slots.stop()
            self.heartbeat.stop_work()
            assert self.slots.wait(30)
        self.heartbeat.stop()


@pytest.fixture
def bench(ledger: Ledger, ledger_settings: LedgerSettings) -> Iterator[Bench]:
    bench = Bench(ledger, ledger_settings)
    yield bench
    bench.close()


def until_stopped(context: JobContext) -> dict[str, Any]:
    context.cancel.wait(60)
    context.check()
    return {}


def test_a_busy_worker_makes_one_script_call_for_each_job(
    bench: Bench, redis_client: "redis.Redis", figure: Callable[[str], None]
) -> None:
    number = 200
    jobs = [bench.submit() for _ in range(number)]
    redis_client.config_resetstat()
    bench.start(lambda _: {})
    wait_until(lambda: len(bench.ends.states) == number, what="all jobs have ended")
    stats: Any = redis_client.info("commandstats")
    calls = {
        name: int(stats.get(f"cmdstat_{name}", {}).get("calls", 0))
        for name in ("evalsha", "publish", "xadd", "brpop")
    }
    figure(f"a job of a busy worker: {calls['evalsha'] / number:.2f} script calls, {calls}")
    assert {job.state for job in bench.ended(*jobs)} == {JobState.SUCCEEDED}
    # Beside one call for each job: claims of the idle slot, and heartbeats.
    assert calls["evalsha"] < 1.5 * number
    assert calls["publish"] == 0, "nobody waits"
    assert calls["xadd"] == 0, "nobody follows"


def test_a_claim_whose_reply_was_lost_is_not_lost(bench: Bench) -> None:
    real, lost = Ledger.claim, list[Claimed]()

    def stumble(ledger: Ledger, want: Want) -> Claimed:
        claimed = real(ledger, want)
        if claimed.jobs and not lost:
            lost.append(claimed)
            raise UnavailableError("Redis does not answer")
        return claimed

    with mock.patch.object(Ledger, "claim", stumble):
        job = bench.submit()
        bench.start(lambda _: {})
        (ended,) = bench.ended(job)
    assert lost
    assert (ended.state, ended.attempts, ended.crashes) == (JobState.SUCCEEDED, 1, 0)


def test_a_shutdown_gives_back_what_runs_and_claims_nothing_more(bench: Bench) -> None:
    slots = bench.start(until_stopped)
    job = bench.submit()
    wait_until(bench.heartbeat.running, what="the job runs")
    slots.stop()
    assert not slots.wait(0.1)
    bench.heartbeat.stop_work()
    assert slots.wait(30)
    back = bench.ledger.get(job)
    assert (back.state, back.attempts) == (JobState.QUEUED, 0)
    assert entries(bench.ledger, "downloads") == 1, "another worker may take it"


def test_what_was_claimed_while_the_worker_was_told_to_stop_is_given_back(bench: Bench) -> None:
    real, worked = Ledger.claim, list[str]()

    def claim_at_the_last_moment(ledger: Ledger, want: Want) -> Claimed:
        claimed = real(ledger, want)
        if claimed.jobs:
            assert bench.slots is not None
            bench.slots.stop()
        return claimed

    def work(context: JobContext) -> dict[str, Any]:
        worked.append(context.job.id)
        return {}

    job = bench.submit()
    with mock.patch.object(Ledger, "claim", claim_at_the_last_moment):
        slots = bench.start(work)
        assert slots.wait(30), "without a grace time, as it has not begun"
    back = bench.ledger.get(job)
    assert (back.state, back.attempts, back.crashes) == (JobState.QUEUED, 0, 0)
    assert not worked


def test_the_jobs_of_a_batched_model_run_at_once(bench: Bench) -> None:
    together = threading.Barrier(3, timeout=30)

    def work(_: JobContext) -> dict[str, Any]:
        together.wait()
        return {}

    jobs = [bench.submit(affinity="m@1") for _ in range(3)]
    bench.start(work, models=Models({"m@1": 3}))
    assert {job.state for job in bench.ended(*jobs)} == {JobState.SUCCEEDED}


def test_an_idle_slot_gives_a_sign_of_life_and_a_dead_one_does_not(bench: Bench) -> None:
    slots = bench.start(lambda _: {}, 2)
    before = slots.seen_at()
    wait_until(lambda: slots.seen_at() > before, what="a sign of life")
    slots._slots[0].seen_at = 1.0
    slots._slots[0].busy = False
    assert slots.seen_at() <= time.monotonic()
