"""An upload that only one host can do does not wait for ever for that host."""

from collections.abc import Callable

import pytest
import redis

from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob, Presence, WorkerInfo
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


def test_the_upload_of_a_lost_host_fails_and_says_so(
    ledger: Ledger, presence: Presence, queued: Callable[[str], Job]
) -> None:
    job = queued(uploads_of("gone"))
    assert not LostHosts(ledger, presence, 60).gives_up(job), "the host may come back"
    assert LostHosts(ledger, presence, -1).gives_up(job)
    ended = ledger.get(job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == ("host_lost", True)
    assert "'gone'" in ended.error.detail


def test_jobs_that_somebody_can_do_are_left(
    ledger: Ledger, presence: Presence, queued: Callable[[str], Job]
) -> None:
    presence.announce(WorkerInfo("cpu@here", "cpu", "here", {}))
    presence.announce(WorkerInfo("gpu@there", "gpu", "there", {}))
    hosts = LostHosts(ledger, presence, -1)
    assert not hosts.gives_up(queued(uploads_of("here")))
    assert not hosts.gives_up(queued(UPLOADS))
    assert hosts.gives_up(queued(uploads_of("there"))), "a GPU worker uploads nothing"


def test_a_job_that_was_claimed_meanwhile_is_left(
    ledger: Ledger, presence: Presence, queued: Callable[[str], Job]
) -> None:
    job = queued(uploads_of("gone"))
    ledger.claim(job.id, "cpu@gone")
    assert not LostHosts(ledger, presence, -1).gives_up(job)
    assert ledger.get(job.id).state is JobState.RUNNING
