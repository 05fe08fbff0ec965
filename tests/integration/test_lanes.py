"""Submitters take turns, priorities are strict, and what may not start stands in nobody's way."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from shared.jobs import JobKind, JobState
from shared.ledger import Ledger, connect
from shared.ledger.schema import celery_queue
from shared.settings import LedgerSettings, RedisSettings
from tests.claims import claim_next, download, entries, want
from tests.integration.workplace import Workplace
from tests.processes import wait_until
from workers.process.heartbeat import Heartbeat

SLOTS = 4
MANY = 5000
#: The present, where the test can move it.
CLOCK = "tonumber(redis.call('GET', KEYS[1] .. ':clock'))"


@pytest.fixture
def patient(redis_settings: RedisSettings, ledger_settings: LedgerSettings) -> Iterator[Ledger]:
    """A ledger that has time for thousands on a busy machine."""
    client = connect(redis_settings.model_copy(update={"timeout_seconds": 60}))
    yield Ledger(client, ledger_settings)
    client.close()


def batch(ledger: Ledger, count: int, **changes: object) -> list[str]:
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="", **changes)
    children = [download(f"org/m{number}", **changes) for number in range(count)]
    return list(ledger.accept(parent, children)[0].children)


def start(ledger: Ledger, count: int, *, alone: bool = False) -> list[str]:
    """Claim so many jobs, and return their ids in order."""
    jobs = [claim_next(ledger, "cpu@a", "downloads", alone=alone) for _ in range(count)]
    return [job.id for job in jobs if job is not None]


def test_one_job_starts_soon_after_thousands_of_another_submitter(patient: Ledger) -> None:
    many = batch(patient, MANY, submitter="a")
    assert start(patient, 2) == many[:2]
    one = patient.accept(download("m", submitter="b"))[0].id
    assert one in start(patient, 2)


def test_submitters_take_turns(ledger: Ledger) -> None:
    for submitter in "aaaabbbbc":
        ledger.accept(download(submitter, submitter=submitter))
    jobs = [ledger.get(job_id) for job_id in start(ledger, 9)]
    assert "".join(job.submitter for job in jobs) == "abcababab"


def test_the_more_urgent_start_first_whoever_submits_them(ledger: Ledger) -> None:
    batch(ledger, 3, priority=5, submitter="a")
    later = ledger.accept(download("m", priority=6, submitter="b"))[0].id
    sooner = ledger.accept(download("m", priority=4, submitter="a"))[0].id
    urgent = ledger.accept(download("m", priority=0, submitter="a"))[0].id
    started = start(ledger, 6)
    assert (started[:2], started[-1]) == ([urgent, sooner], later)


def test_a_cancelled_batch_leaves_its_places(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    parent = ledger.get(batch(ledger, 250)[0]).parent_id
    others = batch(ledger, 3)
    assert parent is not None
    ledger.cancel(parent)
    assert redis_client.llen(celery_queue(ledger_settings, "downloads")) == 3
    assert start(ledger, 4) == others


def test_a_job_waits_for_its_backoff_outside_the_lanes(ledger: Ledger) -> None:
    first, second = batch(ledger, 2)
    job = claim_next(ledger, "cpu@a", "downloads")
    assert job is not None
    assert ledger.requeue(job, delay_seconds=60).kept
    ledger.reconcile()
    assert start(ledger, 2) == [second]
    assert ledger.get(first).state is JobState.QUEUED


def test_a_job_that_lost_two_workers_starts_only_alone(ledger: Ledger) -> None:
    (bad,) = batch(ledger, 1)
    for _ in range(2):
        job = claim_next(ledger, "cpu@a", "downloads")
        assert job is not None
        ledger.lose(job)
    wait_until(
        lambda: ledger.reconcile() and entries(ledger, "downloads:alone"),
        what="its backoff is over",
    )
    (good,) = batch(ledger, 1)
    assert start(ledger, 2) == [good]
    assert start(ledger, 2, alone=True) == [bad]


# ── affinity ─────────────────────────────────────────────────────────────────


class Clockwork:
    """A ledger whose clock the test moves, and the claims of workers with warm models."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._client = client
        self._key = f"{settings.prefix}:2:clock"
        self.ledger = Ledger(client, settings, CLOCK)
        client.set(self._key, 10**12)

    def advance(self, seconds: float) -> None:
        self._client.incrby(self._key, round(seconds * 1000))

    def submit(self, affinity: str, **changes: object) -> str:
        return self.ledger.accept(download(affinity, affinity=affinity, **changes))[0].id

    def claim(self, worker: str, *, loads: bool = True, **warm: int) -> list[str] | float | None:
        """Return what a worker gets, or for how long it is to wait."""
        wanted = want(worker, "downloads", warm=warm, loads=loads)
        claimed = self.ledger.claim(wanted)
        return [job.id for job in claimed.jobs] or claimed.wait_seconds


@pytest.fixture
def clockwork(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Clockwork:
    return Clockwork(redis_client, ledger_settings.model_copy(update={"affinity_seconds": 5}))


@pytest.mark.parametrize("step", [0, -3600])
def test_jobs_of_a_warm_model_go_first_but_only_for_the_window(
    clockwork: Clockwork, step: int
) -> None:
    cold = clockwork.submit("cold")
    warm = [clockwork.submit("warm") for _ in range(10)]
    for number in range(5):
        assert clockwork.claim("gpu@a", warm=1) == [warm[number]]
        clockwork.advance(1)
    clockwork.advance(step)
    assert clockwork.claim("gpu@a", warm=1) == [cold], "its window is over"
    assert clockwork.claim("gpu@a", warm=1) == [warm[5]]


def test_a_more_urgent_job_of_a_cold_model_goes_first(clockwork: Clockwork) -> None:
    clockwork.submit("warm")
    urgent = clockwork.submit("cold", priority=0)
    assert clockwork.claim("gpu@a", warm=1) == [urgent]


@pytest.mark.parametrize("step", [3, -3600])
def test_a_job_is_left_to_a_worker_where_its_model_is_warm_for_as_long_as_a_load_takes(
    clockwork: Clockwork, step: int
) -> None:
    clockwork.ledger.renew("gpu@b", [], {"model": 3.0})
    first, second = clockwork.submit("model"), clockwork.submit("model")
    assert isinstance(clockwork.claim("gpu@a"), float)
    assert clockwork.claim("gpu@b", model=1) == [first]
    clockwork.advance(step)
    assert clockwork.claim("gpu@a") == [second]


def test_a_worker_whose_warm_models_redis_forgot_has_them_again_with_its_next_beat(
    clockwork: Clockwork, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    loads = {"model": 3.0}
    beating = Heartbeat("gpu@b", clockwork.ledger, 60, lambda: None, warm_loads=lambda: loads)
    beating.beat()
    assert redis_client.delete(f"{ledger_settings.prefix}:2:warm:gpu@b") == 1
    beating.beat()
    clockwork.submit("model")
    assert isinstance(clockwork.claim("gpu@a"), float), "it is left to the other worker"


def test_a_job_is_left_to_nobody_where_no_worker_has_its_model(clockwork: Clockwork) -> None:
    job = clockwork.submit("model")
    assert isinstance(clockwork.claim("gpu@a", loads=False), float)
    clockwork.ledger.renew("gpu@b", [], {"model": 3.0})
    clockwork.ledger.renew("gpu@b", [], {})
    assert clockwork.claim("gpu@a") == [job]


def test_a_batched_model_gets_several_jobs_at_once(clockwork: Clockwork) -> None:
    jobs = [clockwork.submit("model", submitter=name) for name in "aabbc"]
    clockwork.submit("other")
    assert clockwork.claim("gpu@a", model=4) == jobs[:4]


# ── a real worker ────────────────────────────────────────────────────────────


@pytest.fixture
def place(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, tmp_path: Path
) -> Iterator[Workplace]:
    """A worker with the usual four slots."""
    usual = LedgerSettings(prefix=ledger_settings.prefix)
    place = Workplace(redis_settings, usual, tmp_path, SCRIPTED_SECONDS="0.05")
    yield place
    place.close()


def test_with_a_real_worker_one_starts_soon_after_thousands(
    place: Workplace, figure: Callable[[str], None]
) -> None:
    many = batch(place.ledger, MANY, submitter="a")
    place.start()
    wait_until(lambda: place.job(many[0]).state.terminal, what="the first has ended")
    one = place.submit("m", submitter="b")
    submitted_at = datetime.now(UTC)
    (job,) = place.ended(one)
    assert job.started_at is not None
    others = [started for other in many[:500] if (started := place.job(other).started_at)]
    between = [started for started in others if submitted_at < started < job.started_at]
    figure(f"fairness: behind {MANY} jobs of another, {len(between)} of them started before it")
    assert others[0] < submitted_at, "they were at it"
    assert len(between) <= 2 * SLOTS
    parent = place.job(many[0]).parent_id
    assert parent is not None
    place.ledger.cancel(parent)


@pytest.mark.timeout(200)
def test_everything_is_done_after_the_entries_were_deleted(place: Workplace) -> None:
    waiting = batch(place.ledger, 40)
    place.start()
    wait_until(lambda: place.job(waiting[0]).state.terminal, what="the first has ended")
    place.client.delete(celery_queue(place.settings, "downloads"))
    assert {job.state for job in place.ended(*waiting)} == {JobState.SUCCEEDED}
