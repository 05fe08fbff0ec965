"""An upload that only one host can do does not wait for ever for that host."""

from collections.abc import Callable

import pytest
import redis

from shared.jobs import Job, JobKind, JobState
from shared.ledger import Hint, Ledger, NewJob, Presence, WorkerInfo
from shared.queue import UPLOADS, uploads_of
from shared.settings import LedgerSettings
from workers.lost_hosts import LostHosts


@pytest.fixture
def presence(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Presence:
    return Presence(redis_client, ledger_settings)


@pytest.fixture
def queued(ledger: Ledger) -> Callable[[str], Job]:
    """A job in a queue."""

    def accept(queue: str) -> Job:
        return ledger.accept(
            NewJob(kind=JobKind.UPLOAD, request={}, queue=queue, model="m", max_attempts=3)
        )[0]

    return accept


def is_given_up(ledger: Ledger, presence: Presence, job: Job, patience_seconds: float = -1) -> bool:
    """Return whether a job that waits is failed for its host."""
    hint = Hint(job.id, job.kind, job.model, job.queue, job.priority)
    LostHosts(ledger, presence, patience_seconds).give_up(job.queue, [hint])
    return ledger.get(job.id).state is JobState.FAILED


def test_the_upload_of_a_lost_host_fails_and_says_so(
    ledger: Ledger, presence: Presence, queued: Callable[[str], Job]
) -> None:
    job = queued(uploads_of("gone"))
    assert not is_given_up(ledger, presence, job, 60), "the host may come back"
    assert is_given_up(ledger, presence, job)
    ended = ledger.get(job.id)
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == ("host_lost", True)
    assert "'gone'" in ended.error.detail


def test_jobs_that_somebody_can_do_are_left(
    ledger: Ledger, presence: Presence, queued: Callable[[str], Job]
) -> None:
    presence.announce(WorkerInfo("cpu@here", "cpu", "here", {}))
    presence.announce(WorkerInfo("gpu@there", "gpu", "there", {}))
    assert not is_given_up(ledger, presence, queued(uploads_of("here")))
    assert not is_given_up(ledger, presence, queued(UPLOADS))
    there = queued(uploads_of("there"))
    assert is_given_up(ledger, presence, there), "a GPU worker uploads nothing"


def test_a_job_that_was_claimed_meanwhile_is_left(
    ledger: Ledger, presence: Presence, queued: Callable[[str], Job]
) -> None:
    job = queued(uploads_of("gone"))
    ledger.claim(job.id, "cpu@gone")
    assert not is_given_up(ledger, presence, job)
    assert ledger.get(job.id).state is JobState.RUNNING
