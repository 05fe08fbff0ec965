"""A job whose service does not answer waits for it in the ledger, at no cost of attempts."""

import uuid
from typing import Any

import pytest
import redis

from shared.errors import HostLostError, UnavailableError
from shared.jobs import Job, JobKind, JobState, Progress
from shared.ledger import JobEvent, Ledger, NewJob
from shared.settings import LedgerSettings
from tests.claims import claim, download
from workers.context import JobContext, Work
from workers.process.heartbeat import Heartbeat
from workers.process.runner import Runner

#: The present, where the test can move it.
CLOCK = "tonumber(redis.call('GET', KEYS[1] .. ':clock'))"
BUDGET_SECONDS = 900


class Bench:
    """A ledger whose clock the test moves, and one worker's runner."""

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client
        self.settings = LedgerSettings(prefix=f"outage-{uuid.uuid4().hex}")
        self.seconds = 1_000_000.0
        self.ledger = Ledger(client, self.settings, clock=CLOCK)
        self.heartbeat = Heartbeat("cpu@a", self.ledger, 60, lambda: None)
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.client.set(f"{self.settings.prefix}:2:clock", round(self.seconds * 1000))

    def submit(self, **changes: Any) -> str:
        fields: dict[str, Any] = {"request": {}, "max_attempts": 2} | changes
        return self.ledger.accept(download("m", **fields))[0].id

    def run(self, job_id: str, work: Work) -> Job:
        works = dict.fromkeys(JobKind, work)
        running = self.heartbeat.watch(self.claim(job_id))
        Runner(self.ledger, self.heartbeat, works, self.settings).run(running)
        return self.ledger.get(job_id)

    def claim(self, job_id: str, owner: str = "cpu@a") -> Job:
        """Reconcile, which brings jobs back whose wait is over, and claim a job."""
        self.ledger.reconcile()
        return claim(self.ledger, job_id, owner)

    def run_when_due(self, job_id: str, work: Work) -> Job:
        """Move the clock to the job's next run, and run it."""
        wait = self.ledger.get(job_id).available_at.timestamp() - self.seconds
        self.advance(max(wait, 0))
        return self.run(job_id, work)


@pytest.fixture
def bench(redis_client: "redis.Redis") -> Bench:
    return Bench(redis_client)


def missing(service: str, completed: int = 0, asks: int | None = None) -> Work:
    """Work that gets so far, and then does not reach a service."""

    def work(context: JobContext) -> dict[str, Any]:
        if completed:
            context.report(completed, 100, "bytes")
        error = UnavailableError(f"{service} is away", code="away", service=service)
        error.retry_after_seconds = asks
        raise error

    return work


def done(context: JobContext) -> dict[str, Any]:
    return {"done": True}


def test_a_job_waits_for_its_service_and_keeps_its_attempts(bench: Bench) -> None:
    job_id = bench.submit()
    for _ in range(10):
        job = bench.run_when_due(job_id, missing("lakeFS"))
        assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    assert job.waiting_for is not None
    assert (job.waiting_for.service, job.waiting_for.reason) == ("lakeFS", "lakeFS is away")
    assert job.waiting_for.since.timestamp() == 1_000_000
    ended = bench.run_when_due(job_id, done)
    assert (ended.state, ended.attempts, ended.waiting_for) == (JobState.SUCCEEDED, 1, None)


def test_the_waits_double_from_a_second_to_their_longest(bench: Bench) -> None:
    job_id, waits = bench.submit(), []
    for _ in range(8):
        job = bench.run_when_due(job_id, missing("hub"))
        waits.append(job.available_at.timestamp() - bench.seconds)
    longest = bench.settings.outage_backoff_max_seconds
    for number, wait in enumerate(waits):
        bound = min(2**number, longest)
        assert bound / 2 <= wait <= bound + 0.002


def test_the_service_s_own_wish_comes_on_top(bench: Bench) -> None:
    job = bench.run(bench.submit(), missing("hub", asks=120))
    assert 120 <= job.available_at.timestamp() - bench.seconds <= 121.1


@pytest.mark.parametrize("completed", [0, 10])
def test_an_outage_longer_than_the_budget_fails_the_job_and_says_so(
    bench: Bench, completed: int
) -> None:
    job_id = bench.submit()
    job = bench.ledger.get(job_id)
    while not job.state.terminal:
        job = bench.run_when_due(job_id, missing("lakeFS", completed))
    assert bench.seconds == pytest.approx(1_000_000 + BUDGET_SECONDS, abs=0.01)
    assert (job.state, job.attempts, job.waiting_for) == (JobState.FAILED, 1, None)
    assert job.error is not None
    assert job.error.detail == "lakeFS is away (lakeFS was away for 15 min)"
    assert bench.ledger.counts().waiting == {}


def test_progress_begins_a_new_outage(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run(job_id, missing("hub", completed=10))
    bench.advance(600)
    again = bench.run(job_id, missing("hub", completed=10))
    assert again.waiting_for is not None
    assert again.waiting_for.since.timestamp() == 1_000_000, "as far as before is no progress"
    bench.advance(60)
    moved = bench.run(job_id, missing("hub", completed=11))
    assert moved.waiting_for is not None
    assert moved.waiting_for.since.timestamp() == bench.seconds
    assert moved.available_at.timestamp() - bench.seconds <= 1.002, "and the waits start anew"


def test_a_service_that_fails_sooner_or_later_each_time_is_away(bench: Bench) -> None:
    """As a lakeFS whose disk is full: it takes a part of a large file, and never the whole."""

    def work(context: JobContext) -> dict[str, Any]:
        for completed in (30 + bench.seconds % 7, 20):  # sent twice in a run, from the beginning
            context.report(int(completed), 100, "bytes")
            context.flush()
        raise UnavailableError("lakeFS has no space", service="lakeFS")

    job_id = bench.submit()
    while not bench.ledger.get(job_id).state.terminal:
        bench.run_when_due(job_id, work)
        assert bench.seconds < 1_000_000 + 3 * BUDGET_SECONDS
    assert bench.ledger.counts().waiting == {}


def test_sending_again_what_was_lost_is_no_part_of_the_outage(bench: Bench) -> None:
    """As a large file of which lakeFS had the most, and which takes longer than the budget."""

    def work(context: JobContext) -> dict[str, Any]:
        for completed in range(BUDGET_SECONDS // 3):
            bench.advance(4)
            context.report(completed, BUDGET_SECONDS, "bytes")
            context.flush()
        raise UnavailableError("lakeFS restarts", service="lakeFS")

    job_id = bench.submit()
    for _ in range(3):
        assert bench.run_when_due(job_id, work).state is JobState.QUEUED
    moved_seconds = bench.seconds - 1_000_000
    while not bench.ledger.get(job_id).state.terminal:
        bench.run_when_due(job_id, missing("lakeFS"))
    assert bench.seconds < 1_000_000 + moved_seconds + BUDGET_SECONDS


def test_a_frozen_service_that_took_some_bytes_was_away(bench: Bench) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        context.report(0, 100, "bytes")
        context.report(1, 100, "bytes")
        bench.advance(60)  # the call's time limit; then the last report is written
        raise UnavailableError("lakeFS did not answer", service="lakeFS")

    job_id = bench.submit()
    while not bench.ledger.get(job_id).state.terminal:
        bench.run_when_due(job_id, work)
    assert bench.seconds < 1_000_000 + BUDGET_SECONDS + 2 * 61


def test_progress_takes_the_note_off_a_job_that_runs_again(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run(job_id, missing("hub", completed=10))
    bench.advance(5)
    claimed = bench.claim(job_id, "cpu@b")
    assert claimed.waiting_for is not None
    bench.ledger.report_progress(claimed, Progress(completed=9))
    assert bench.ledger.get(job_id).waiting_for is not None
    bench.ledger.report_progress(claimed, Progress(completed=11))
    assert bench.ledger.get(job_id).waiting_for is None
    assert bench.ledger.counts().waiting == {}


def test_another_service_that_is_away_is_another_outage(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run(job_id, missing("lakeFS"))
    bench.advance(800)
    job = bench.run(job_id, missing("MLflow"))
    assert job.waiting_for is not None
    assert job.waiting_for.service == "MLflow"
    assert job.waiting_for.since.timestamp() == bench.seconds
    assert bench.ledger.counts().waiting == {"MLflow": 1}


def test_a_job_that_waits_is_cancelled_at_once(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run(job_id, missing("lakeFS"))
    job = bench.ledger.cancel(job_id)
    assert (job.state, job.waiting_for) == (JobState.CANCELLED, None)
    assert bench.ledger.counts().waiting == {}


def test_the_deadline_of_a_job_that_waits_holds(bench: Bench) -> None:
    job_id = bench.submit(lifetime_seconds=30)
    bench.run(job_id, missing("lakeFS", asks=100))
    bench.advance(31)
    bench.ledger.reconcile()
    job = bench.ledger.get(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "deadline_exceeded")
    assert job.error.detail == "the deadline passed while the job waited for lakeFS"


@pytest.mark.parametrize(
    "error", [HostLostError("the host is gone"), UnavailableError("the page is away")]
)
def test_what_is_no_service_of_ours_is_tried_a_few_times(
    bench: Bench, error: UnavailableError
) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        raise error

    job_id = bench.submit()
    assert bench.run(job_id, work).attempts == 1
    job = bench.run_when_due(job_id, work)
    assert (job.state, job.attempts, job.waiting_for) == (JobState.FAILED, 2, None)


def test_counts_and_events_tell_of_jobs_that_wait(bench: Bench) -> None:
    first, second = bench.submit(streams=True), bench.submit()
    for job_id in (first, second):
        bench.run(job_id, missing("lakeFS"))
    counts = bench.ledger.counts()
    assert counts.waiting == {"lakeFS": 2}
    assert counts.total(JobEvent.POSTPONED, JobKind.DOWNLOAD) == 2
    assert counts.total(JobEvent.RETRIED) == 0
    events: Any = bench.client.xrange(f"{bench.settings.prefix}:2:events:{first}")
    assert '"waiting_for":{' in [fields["data"] for _, fields in events][-1]


def test_an_import_shows_what_its_step_waits_for(bench: Bench) -> None:
    parent_id = bench.submit(kind=JobKind.IMPORT)
    parent = bench.claim(parent_id)
    step = NewJob(kind=JobKind.UPLOAD, request={}, queue="uploads", model="m", max_attempts=2)
    bench.ledger.delegate(parent, step)
    bench.run(step.id, missing("lakeFS"))
    shown = bench.ledger.get(parent_id).waiting_for
    assert shown is not None
    assert shown.service == "lakeFS"
    assert bench.ledger.counts().waiting == {"lakeFS": 1}, "counted once"
    bench.run_when_due(step.id, done)
    assert bench.ledger.get(parent_id).waiting_for is None
    assert bench.ledger.counts().waiting == {}


def test_orders_that_cross_an_outage_are_kept(bench: Bench) -> None:
    """A lost reply, a worker that was thought dead, a cancel while the run failed."""
    job_id, error = bench.submit(), UnavailableError("away", service="hub")
    job = bench.claim(job_id)
    assert bench.ledger.postpone(job, "hub", error.info()).kept
    assert bench.ledger.postpone(job, "hub", error.info()).kept, "asked again"
    assert bench.ledger.counts().waiting == {"hub": 1}
    bench.advance(5)
    bench.claim(job_id, "cpu@b")
    late = bench.ledger.postpone(job, "hub", error.info())
    assert (late.kept, late.over) == (False, False)
    again = bench.ledger.get(job_id)
    bench.ledger.cancel(job_id)
    assert bench.ledger.postpone(again, "hub", error.info()).kept
    assert bench.ledger.get(job_id).state is JobState.CANCELLED
