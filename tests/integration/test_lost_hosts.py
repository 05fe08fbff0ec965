"""An upload that only one host can do does not wait for ever for that host."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import redis

from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob, Placed, Placement, Presence, WorkerInfo
from shared.queue import UPLOADS, uploads_of
from shared.requests import DownloadRequest
from shared.settings import LedgerSettings
from tests.claims import claim, claim_next
from tests.processes import wait_until
from workers.process.reconciler import LostHostRecovery

PLACED = Placed(
    host="gone",
    source=DownloadRequest(model_name="org/m", revision="c0ffee", allow_patterns=("*.json",)),
    files=2,
    size_bytes=300,
    staged_at=datetime(2026, 1, 1, tzinfo=UTC),
)
GiveUp = Callable[..., Job]


@pytest.fixture
def presence(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Presence:
    return Presence(redis_client, ledger_settings)


@pytest.fixture
def placement(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Placement:
    return Placement(redis_client, ledger_settings)


@pytest.fixture
def queued(ledger: Ledger) -> Callable[..., Job]:
    """An upload in a queue."""

    def accept(queue: str, **more: str) -> Job:
        request = {"local_model_name": "org_m", **more}
        new = NewJob(kind=JobKind.UPLOAD, request=request, queue=queue, model="m", max_attempts=3)
        return ledger.accept(new)[0]

    return accept


@pytest.fixture
def give_up(ledger: Ledger, presence: Presence, placement: Placement) -> GiveUp:
    """Let the reconciler look at a job that waits; returns the job as it then is."""

    def run(job: Job, patience_seconds: float = -1) -> Job:
        LostHostRecovery(ledger, presence, placement, patience_seconds).recover()
        return ledger.get(job.id)

    return run


def test_the_upload_of_a_lost_host_is_given_to_all_hosts(
    ledger: Ledger, placement: Placement, queued: Callable[[str], Job], give_up: GiveUp
) -> None:
    placement.record(PLACED)
    assert placement.find("org_m") == PLACED
    assert placement.list() == (PLACED,)
    job = queued(uploads_of("gone"))
    assert give_up(job, 60).queue == uploads_of("gone"), "the host may come back"
    moved = give_up(job)
    assert (moved.state, moved.queue) == (JobState.QUEUED, UPLOADS)
    waiting = {each.queue: each.queued for each in ledger.counts().queues}
    assert waiting == {UPLOADS: 1, uploads_of("gone"): 0}
    assert claim(ledger, job.id, "cpu@here"), "who came for it from either queue may have it"
    assert claim_next(ledger, "cpu@gone", UPLOADS, uploads_of("gone")) is None


def test_an_upload_that_nobody_can_download_again_fails_and_says_so(
    queued: Callable[[str], Job], give_up: GiveUp
) -> None:
    job = queued(uploads_of("gone"))
    assert give_up(job, 60).state is JobState.QUEUED, "the host may come back"
    ended = give_up(job)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == ("host_lost", True)
    assert "'gone'" in ended.error.detail


def test_a_host_that_redis_forgot_for_a_moment_is_not_lost(
    ledger: Ledger, presence: Presence, placement: Placement, queued: Callable[[str], Job]
) -> None:
    """After an outage of Redis nobody is known to be alive, and all jobs have waited for long."""
    job = queued(uploads_of("here"))
    recovery = LostHostRecovery(ledger, presence, placement, 0.2)
    wait_until(lambda: (datetime.now(UTC) - job.available_at).total_seconds() > 0.2)
    recovery.recover()
    presence.announce(WorkerInfo("cpu@here", "cpu", "here", {}))
    wait_until(lambda: (datetime.now(UTC) - job.available_at).total_seconds() > 0.5)
    recovery.recover()
    presence.leave("cpu@here")
    recovery.recover()
    assert ledger.get(job.id).queue == uploads_of("here")
    assert ledger.get(job.id).state is JobState.QUEUED

    def is_lost() -> bool:
        recovery.recover()
        return ledger.get(job.id).state is JobState.FAILED

    wait_until(is_lost, 10, "the host is lost once it was silent for long")


def test_jobs_that_somebody_can_do_are_left(
    presence: Presence, queued: Callable[[str], Job], give_up: GiveUp
) -> None:
    presence.announce(WorkerInfo("cpu@here", "cpu", "here", {}))
    presence.announce(WorkerInfo("gpu@there", "gpu", "there", {}))
    assert give_up(queued(uploads_of("here"))).state is JobState.QUEUED
    assert give_up(queued(UPLOADS)).state is JobState.QUEUED
    there = give_up(queued(uploads_of("there")))
    assert there.state is JobState.FAILED, "a GPU worker uploads nothing"


def test_a_job_that_was_claimed_meanwhile_is_left(
    ledger: Ledger, placement: Placement, queued: Callable[[str], Job], give_up: GiveUp
) -> None:
    job = queued(uploads_of("gone"))
    claim(ledger, job.id, "cpu@gone")
    assert give_up(job).state is JobState.RUNNING
    placement.record(PLACED)
    assert give_up(job).state is JobState.RUNNING
    assert not ledger.reassign(job, UPLOADS), "its fence is another one now"


def test_a_host_that_was_lost_while_it_ran_its_only_upload_is_noticed(
    ledger: Ledger, placement: Placement, queued: Callable[..., Job], give_up: GiveUp
) -> None:
    placement.record(PLACED)
    job = queued(uploads_of("gone"))
    running = claim(ledger, job.id, "cpu@gone")
    ledger.reconcile()  # nothing waits for the host now, and its queue is forgotten
    assert ledger.lose(running)
    assert [each.queue for each in ledger.counts().queues if each.queued] == [uploads_of("gone")]
    assert give_up(job).queue == UPLOADS


def test_an_upload_with_a_long_message_is_given_to_all_hosts_too(
    placement: Placement, queued: Callable[..., Job], give_up: GiveUp
) -> None:
    placement.record(PLACED)
    job = queued(uploads_of("gone"), commit_message="模" * 2000)
    assert give_up(job).queue == UPLOADS
