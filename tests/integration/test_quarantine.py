"""A job that takes its process down fails alone: a real worker, whose work is scripted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.jobs import JobState
from shared.ledger import JobEvent, Want
from shared.settings import LedgerSettings, RedisSettings
from tests.integration.workplace import Workplace, alive
from tests.processes import wait_until

NEIGHBOURS = 20


@pytest.fixture
def place(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, tmp_path: Path
) -> Iterator[Workplace]:
    """A worker with the default settings, but for a lease that a test can wait for."""
    shorter = LedgerSettings(prefix=ledger_settings.prefix, lease_seconds=4, backoff_seconds=0.2)
    place = Workplace(redis_settings, shorter, tmp_path, WORKER_DRAIN_SECONDS="0.5")
    yield place
    place.close()


@pytest.fixture
def crashed_twice(place: Workplace) -> Callable[[str], str]:
    """Submit a job that has lost two workers, before there is one; returns its id."""

    def claimed() -> bool:
        want = Want(slot="cpu@lost/0", owner="cpu@lost", queues=("downloads",))
        return bool(place.ledger.claim(want).jobs)

    def submit(model: str) -> str:
        job_id = place.submit(model)
        for _ in range(2):
            wait_until(claimed, what="claim")
            assert place.worker is None
            assert place.ledger.lose(place.job(job_id))
        return job_id

    return submit


@pytest.mark.timeout(300)
def test_poison_takes_no_neighbour_with_it(place: Workplace, figure: Callable[[str], None]) -> None:
    poison = place.submit("poison")
    neighbours = [place.submit(f"org/m{number}") for number in range(NEIGHBOURS)]
    place.start()
    ended = place.ended(poison, *neighbours, timeout_seconds=200)
    assert [job.state for job in ended] == [JobState.FAILED] + [JobState.SUCCEEDED] * NEIGHBOURS
    error = ended[0].error
    assert error is not None
    assert (error.code, ended[0].crashes) == ("crashed", 3)
    assert place.ledger.counts().total(JobEvent.CRASHED) == 1
    blamed = [job.crashes for job in ended[1:] if job.crashes]
    figure(f"poison: failed as crashed; of {NEIGHBOURS} neighbours {len(blamed)} lost workers")
    place.tend()
    assert place.ledger.revive(poison).crashes == 0, "and may be replayed"


@pytest.mark.parametrize("model", ["poison", "exit"])
def test_a_crash_alone_costs_only_the_child_and_is_known_at_once(
    place: Workplace, crashed_twice: Callable[[str], str], model: str
) -> None:
    job_id = crashed_twice(model)
    place.start()
    worker = place.worker
    (job,) = place.ended(job_id)
    assert (job.state, job.crashes) == (JobState.FAILED, 3)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert place.worker is worker
    assert worker is not None
    assert worker.poll() is None


def test_a_sound_job_succeeds_alone_in_another_process(
    place: Workplace, crashed_twice: Callable[[str], str]
) -> None:
    job_id = crashed_twice("org/m")
    place.start()
    (job,) = place.ended(job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.result is not None
    assert place.worker is not None
    assert job.result["process"] != place.worker.pid
    assert job.owner == "cpu@test"


def hanging(place: Workplace, job_id: str) -> int:
    """Wait until a hanging job runs alone; returns its process."""
    wait_until(lambda: "it hangs" in place.log.read_text(), what="its work began")
    return place.children()[0]


def test_cancel_reaches_a_job_that_runs_alone(
    place: Workplace, crashed_twice: Callable[[str], str]
) -> None:
    job_id = crashed_twice("hang")
    place.start()
    hanging(place, job_id)
    place.ledger.cancel(job_id)
    assert place.ended(job_id)[0].state is JobState.CANCELLED


def test_a_worker_that_is_told_to_stop_gives_the_job_back(
    place: Workplace, crashed_twice: Callable[[str], str]
) -> None:
    job_id = crashed_twice("hang")
    place.start()
    child = hanging(place, job_id)
    place.stop()
    assert not alive(child)
    job = place.job(job_id)
    assert (job.state, job.crashes) == (JobState.QUEUED, 2)


def test_a_worker_that_stops_while_the_jobs_process_starts_gives_the_job_back(
    place: Workplace, crashed_twice: Callable[[str], str]
) -> None:
    job_id = crashed_twice("hang")
    place.start()
    wait_until(place.children, what="the job's process")
    place.stop()
    job = place.job(job_id)
    assert (job.state, job.attempts, job.crashes) == (JobState.QUEUED, 2, 2)


def test_a_job_that_runs_alone_is_given_back_when_its_worker_is_killed(
    place: Workplace, crashed_twice: Callable[[str], str]
) -> None:
    job_id = crashed_twice("hang")
    place.start()
    child = hanging(place, job_id)
    place.kill()
    wait_until(lambda: not alive(child), what="the child has ended")
    job = place.job(job_id)
    assert (job.state, job.crashes) == (JobState.QUEUED, 2), "whoever killed it, not this job"
