"""The runner on a real ledger: every way a job can leave it."""

import errno
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from shared.errors import (
    InvalidInputError,
    OutOfMemoryError,
    UnavailableError,
)
from shared.jobs import Job, JobKind, JobState, Progress
from shared.ledger import Ledger, NewJob, Want
from shared.settings import LedgerSettings
from tests.processes import wait_until
from workers.context import JobContext, Work
from workers.process.heartbeat import Heartbeat
from workers.process.runner import Runner


class Bench:
    """A ledger with one worker's runner, whose work each test brings."""

    def __init__(self, ledger: Ledger, settings: LedgerSettings) -> None:
        self.ledger = ledger
        self.settings = settings
        self.heartbeat = Heartbeat("cpu@a", ledger, 0.05, lambda: None)

    def submit(self, **changes: Any) -> Job:
        fields: dict[str, Any] = {
            "kind": JobKind.DOWNLOAD,
            "request": {},
            "queue": "downloads",
            "model": "m",
            "max_attempts": 2,
        }
        return self.ledger.accept(NewJob(**(fields | changes)))[0]

    def runner(self, work: Work) -> Runner:
        return Runner(self.ledger, self.heartbeat, {JobKind.DOWNLOAD: work}, self.settings)

    def claim(self) -> Job | None:
        want = Want(slot="cpu@a/0", owner="cpu@a", queues=("downloads",))
        return next(iter(self.ledger.claim(want).jobs), None)

    def run_next(self, work: Work) -> Job | None:
        """Run the next job, if there is one; return what it is then."""
        job = self.claim()
        if job is None:
            return None
        self.runner(work).run(self.heartbeat.watch(job))
        return self.ledger.get(job.id)

    def run(self, work: Work, **changes: Any) -> Job:
        self.submit(**changes)
        job = self.run_next(work)
        assert job is not None
        return job


@pytest.fixture
def bench(ledger: Ledger, ledger_settings: LedgerSettings) -> Iterator[Bench]:
    bench = Bench(ledger, ledger_settings)
    thread = threading.Thread(target=bench.heartbeat.run)
    thread.start()
    yield bench
    bench.heartbeat.stop()
    thread.join()


def raising(error: BaseException) -> Work:
    def work(context: JobContext) -> dict[str, Any]:
        raise error

    return work


def until_stopped(started: threading.Event) -> Work:
    """Work that goes on until its token says stop."""

    def work(context: JobContext) -> dict[str, Any]:
        started.set()
        assert context.cancel.wait(30)
        context.check()
        raise AssertionError("unreachable")

    return work


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_result_and_exact_progress_are_kept(bench: Bench) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        for done in range(101):
            context.report(done, 100, "bytes", "file")
        return {"files": 1}

    job = bench.run(work)
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"files": 1})
    assert job.progress == Progress(completed=100, total=100, unit="bytes", message="file")


def test_error_of_the_request_fails_at_once(bench: Bench) -> None:
    job = bench.run(raising(InvalidInputError("no such task", field="task")))
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.error is not None
    assert job.error.code == "invalid_input"
    assert job.error.errors[0].field == "task"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("no answer", code="media_url_unavailable"), "media_url_unavailable"),
        (OutOfMemoryError("full"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
    ],
)
def test_error_that_may_pass_is_tried_again_then_fails(
    bench: Bench, error: BaseException, code: str
) -> None:
    job = bench.run(raising(error))
    assert job.state is JobState.QUEUED
    assert job.available_at > job.created_at

    def failed() -> bool:
        bench.ledger.reconcile()
        bench.run_next(raising(error))
        return bench.ledger.get(job.id).state is JobState.FAILED

    wait_until(failed, what="last attempt")
    ended = bench.ledger.get(job.id)
    assert ended.error is not None
    assert ended.error.code == code
    assert "after 2 attempts" in ended.error.detail


def test_the_next_attempt_waits_for_as_long_as_the_error_asks(bench: Bench) -> None:
    limited = UnavailableError("hub busy", code="hub_unavailable", service="hub")
    limited.retry_after_seconds = 120
    job = bench.run(raising(limited))
    assert job.state is JobState.QUEUED
    assert (job.available_at - job.created_at).total_seconds() >= 120


def test_a_disk_that_is_full_is_no_defect_wherever_it_shows(bench: Bench) -> None:
    job = bench.run(raising(OSError(errno.ENOSPC, "No space left on device", "manifest.json")))
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.error is not None
    assert job.error.code == "insufficient_disk"
    assert "manifest.json" in job.error.detail


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), KeyError("x")])
def test_defect_is_an_ordinary_failure(bench: Bench, error: BaseException) -> None:
    job = bench.run(raising(error))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "internal_error"


def test_cancel_stops_the_work_and_then_shows(bench: Bench) -> None:
    started = threading.Event()
    job = bench.submit()
    thread = in_background(lambda: bench.run_next(until_stopped(started)))
    assert started.wait(10)
    bench.ledger.cancel(job.id)
    thread.join(10)
    assert bench.ledger.get(job.id).state is JobState.CANCELLED


def test_deadline_stops_the_work(bench: Bench) -> None:
    job = bench.run(until_stopped(threading.Event()), lifetime_seconds=0.3)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "deadline_exceeded"


def test_no_job_runs_for_longer_than_any_may(
    ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    bench = Bench(ledger, ledger_settings)
    bench.heartbeat = Heartbeat("cpu@a", ledger, 0.05, lambda: None, max_seconds=0.2)
    threading.Thread(target=bench.heartbeat.run, daemon=True).start()
    job = bench.run(until_stopped(threading.Event()))
    bench.heartbeat.stop()
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "deadline_exceeded"
    assert "longer than 0.2 s" in job.error.detail


def test_lost_lease_stops_the_work_and_writes_nothing(bench: Bench) -> None:
    started = threading.Event()
    job = bench.submit()
    thread = in_background(lambda: bench.run_next(until_stopped(started)))
    assert started.wait(10)
    bench.ledger.requeue(bench.ledger.get(job.id), counts=False)
    want = Want(slot="cpu@b/0", owner="cpu@b", queues=("downloads",))
    (other,) = bench.ledger.claim(want).jobs
    thread.join(10)
    after = bench.ledger.get(job.id)
    assert (after.owner, after.fence, after.state) == ("cpu@b", other.fence, JobState.RUNNING)


def test_a_job_that_is_claimed_again_by_its_worker_stops_its_first_run(bench: Bench) -> None:
    started = threading.Event()
    job = bench.submit()
    thread = in_background(lambda: bench.run_next(until_stopped(started)))
    assert started.wait(10)
    bench.ledger.requeue(bench.ledger.get(job.id), counts=False)
    again = bench.claim()
    assert again is not None
    second = bench.heartbeat.watch(again)
    thread.join(10)
    assert not thread.is_alive()
    assert not second.cancel.cancelled, "the second run goes on"
    assert bench.heartbeat.running() == [second]


def test_end_is_written_through_an_outage_of_redis(
    bench: Bench, redis_client: "redis.Redis"
) -> None:
    # A paused Redis answers nobody: the first write of the end times out.
    def work(context: JobContext) -> dict[str, Any]:
        redis_client.client_pause(2500)
        return {"done": True}

    job = bench.run(work)
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"done": True})


@pytest.mark.parametrize(
    "result", [{"score": object()}, {"labels": {"a", "b"}}, {"score": float("nan")}]
)
def test_a_result_that_cannot_be_stored_fails_the_job_with_the_reason(
    bench: Bench, result: dict[str, Any]
) -> None:
    job = bench.run(lambda _: result)
    assert (job.state, job.attempts, job.crashes) == (JobState.FAILED, 1, 0)
    assert job.error is not None
    assert job.error.code == "internal_error"
    assert "cannot be written" in job.error.detail


def test_progress_that_cannot_be_stored_fails_the_job_with_the_reason(bench: Bench) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        context.report(0, 2, "bytes", "a")
        context.report(1, 2, "bytes", "caf\udce9.bin")
        return {}

    job = bench.run(work)
    assert (job.state, job.crashes) == (JobState.FAILED, 0)
    assert job.error is not None
    assert job.error.code == "internal_error"
