"""The branches that uploads leave in lakeFS are deleted, and no others."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.cancellation import CancelToken
from shared.errors import ConflictError, ErrorInfo, LeaseLostError, UnavailableError
from shared.jobs import Job, JobKind, JobState
from shared.lakefs.listing import RepositoryListing
from shared.lakefs.store import LakeFSStore
from shared.ledger import JobBranch, Ledger, NewJob, OwnedBranches
from shared.registry import ModelRegistry
from shared.settings import (
    LakeFSSettings,
    LedgerSettings,
    MLflowSettings,
    StorageSettings,
    WorkerSettings,
)
from shared.staging import StagingArea
from tests.claims import claim
from tests.processes import free_port, wait_until
from workers.context import JobContext
from workers.lifecycle.branch_sweeper import BranchSweeper
from workers.lifecycle.upload import Upload, own_branch
from workers.lifecycle.version_branches import VersionBranches

MODEL = "org_model"
RESERVE_SECONDS = 30.0


class KilledError(Exception):
    """Stands for kill -9: nothing of the job's own runs after it."""


class FaultyStore(LakeFSStore):
    """A lakeFS whose deletions of branches do what the test says before they are made."""

    def __init__(self, settings: LakeFSSettings) -> None:
        super().__init__(settings)
        self.deletions: list[str] = []
        self.before_deletion: Callable[[str], object] = lambda _: None

    def delete_branch(self, repo: str, branch: str) -> None:
        self.deletions.append(branch)
        self.before_deletion(branch)
        super().delete_branch(repo, branch)


END = ErrorInfo(code="test", detail="it ended")


class Place:
    """Uploads of one staged model to one repository, and a sweeper."""

    def __init__(
        self, client: "redis.Redis", settings: LedgerSettings, lakefs: LakeFSSettings, folder: Path
    ) -> None:
        self.ledger = Ledger(client, settings)
        self.branches = OwnedBranches(client, settings)
        self.store = FaultyStore(lakefs)
        self.listing = RepositoryListing(lakefs)
        self.repo = self.store.ensure_repository(f"test-{uuid.uuid4().hex[:12]}").name
        # No job's branch needs MLflow.
        registry = ModelRegistry(MLflowSettings(tracking_uri=f"http://127.0.0.1:{free_port()}"))
        versions = VersionBranches(self.store, self.listing, registry, self.branches)
        self.sweeper = BranchSweeper(
            self.ledger, self.branches, self.store, versions, WorkerSettings(), RESERVE_SECONDS
        )
        (folder / MODEL).mkdir()
        (folder / MODEL / "config.json").write_text("{}")
        staging = StagingArea(StorageSettings(staging_dir=folder, reserve_bytes=0))
        self._upload = Upload(self.store, staging, lakefs, branches=self.branches)

    def accept(self) -> Job:
        """Return an upload in the queue."""
        request = {"repo_name": self.repo, "local_model_name": MODEL}
        job = NewJob(
            kind=JobKind.UPLOAD, request=request, queue="uploads", model=MODEL, max_attempts=3
        )
        return self.ledger.accept(job)[0]

    def claim(self, job: Job | None = None) -> Job:
        """Return an upload that runs."""
        running = claim(self.ledger, (job or self.accept()).id, "cpu@test")
        assert running is not None
        return running

    def upload(self, job: Job, token: CancelToken | None = None) -> dict[str, Any]:
        """Do the work of a job."""
        token = token or CancelToken()
        return self._upload(JobContext(job, token, lambda _: None, lambda _: None))

    def left_behind(self, job: Job) -> JobBranch:
        """Make a job's branch as an upload does that is killed before it ends."""
        branch = JobBranch(repo=self.repo, name=own_branch(job), job_id=job.id)
        self.branches.record(branch)
        self.store.ensure_branch(branch.repo, branch.name)
        return branch

    def left_by_cancelled(self) -> JobBranch:
        """Make the branch of a job that is cancelled."""
        job = self.accept()
        branch = self.left_behind(job)
        self.ledger.cancel(job.id)
        return branch

    def sweep(self) -> None:
        """Make one pass."""
        self.sweeper.sweep_jobs()

    def names(self) -> set[str]:
        """Return the branches in lakeFS."""
        return set(self.listing.branches(self.repo, ""))

    def swept(self) -> bool:
        """Make a pass and return whether nothing is left to do."""
        self.sweep()
        return not self.branches.of_jobs()

    def close(self) -> None:
        """Give the connections back."""
        self.store.close()
        self.listing.close()


@pytest.fixture
def place(
    redis_client: "redis.Redis",
    ledger_settings: LedgerSettings,
    lakefs_server: LakeFSSettings,
    tmp_path: Path,
) -> Iterator[Place]:
    place = Place(redis_client, ledger_settings, lakefs_server, tmp_path)
    yield place
    place.close()


def test_an_upload_killed_in_the_middle_leaves_a_branch_until_its_job_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KilledError

    monkeypatch.setattr(place.store, "put", die)
    running = place.claim()
    with pytest.raises(KilledError):
        place.upload(running)
    assert place.names() == {"main", own_branch(running)}
    place.sweep()
    assert place.names() == {"main", own_branch(running)}, "another run goes on there"
    place.ledger.finish(running, JobState.CANCELLED)
    place.sweep()
    assert place.names() == {"main"}
    assert place.branches.of_jobs() == []


def test_an_upload_that_ends_leaves_nothing_to_sweep(place: Place) -> None:
    place.upload(place.claim())
    assert place.names() == {"main"}
    assert place.branches.of_jobs() == []


def test_only_branches_of_jobs_that_ended_are_deleted(place: Place) -> None:
    persons = {"feature", f"job-{uuid.uuid4()}", "job-mine", f"keep-model-v1-{'0' * 12}"}
    for name in persons:
        place.store.ensure_branch(place.repo, name)
    ledger = place.ledger
    running, retried, failed, succeeded, queued, cancelled = (place.accept() for _ in range(6))
    kept = {place.left_behind(job).name for job in (queued, running, retried)}
    unknown = queued.model_copy(update={"id": str(uuid.uuid4())})
    ended = {place.left_behind(job).name for job in (failed, cancelled, succeeded, unknown)}
    place.claim(running)
    ledger.requeue(place.claim(retried), delay_seconds=60, error=END)
    ledger.finish(place.claim(failed), JobState.FAILED, error=END)
    ledger.cancel(cancelled.id)
    ledger.finish(place.claim(succeeded), JobState.SUCCEEDED, result={})
    assert place.names() == {"main"} | persons | kept | ended

    place.sweep()

    assert place.names() == {"main"} | persons | kept
    assert {branch.name for branch in place.branches.of_jobs()} == kept


def test_a_job_that_is_queued_again_just_before_the_deletion_keeps_its_branch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = place.left_by_cancelled()
    reserve = place.branches.reserve

    def revive_first(*arguments: Any) -> str | None:
        place.ledger.revive(branch.job_id)
        return reserve(*arguments)

    monkeypatch.setattr(place.branches, "reserve", revive_first)
    place.sweep()
    assert branch.name in place.names()
    assert place.branches.of_jobs() == [branch]
    place.branches.record(branch)  # no reservation is left


def test_a_job_that_runs_again_during_the_deletion_waits_for_its_end(place: Place) -> None:
    branch = place.left_by_cancelled()
    refused: list[UnavailableError] = []

    def run_again(_: str) -> None:
        place.store.before_deletion = lambda _: None
        with pytest.raises(UnavailableError) as error:
            place.upload(place.claim(place.ledger.revive(branch.job_id)))
        refused.append(error.value)

    place.store.before_deletion = run_again
    place.sweep()
    assert [error.specific_code for error in refused] == ["branch_being_deleted"]
    result = place.upload(place.ledger.get(branch.job_id))
    assert result["commit_id"] == place.store.commit_id(place.repo, "main")
    assert place.names() == {"main"}


def test_a_branch_that_goes_in_the_middle_of_a_run_is_another_attempt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that lakeFS made long after it was asked to, while the job ran again."""
    running = place.claim()
    commit_changes = place.store.commit_changes

    def lose_branch(repo: str, branch: str, *rest: Any) -> str:
        place.store.delete_branch(repo, branch)
        return commit_changes(repo, branch, *rest)

    monkeypatch.setattr(place.store, "commit_changes", lose_branch)
    with pytest.raises(UnavailableError):
        place.upload(running)
    monkeypatch.undo()
    place.upload(running)
    assert place.names() == {"main"}


def test_a_deletion_that_is_refused_is_recorded_and_tried_again(place: Place) -> None:
    def refuse(_: str) -> None:
        raise ConflictError("lakeFS answered 412: pre-delete-branch hook 'guard' failed")

    branch = place.left_by_cancelled()
    place.store.before_deletion = refuse
    place.sweep()
    first = place.branches.failures()[branch.address]
    assert "hook 'guard' failed" in first.reason
    assert (first.branch, first.attempts) == (branch, 1)
    wait_until(lambda: first.due, what="it is time for the second attempt")
    place.sweep()
    second = place.branches.failures()[branch.address]
    assert (second.attempts, second.since) == (2, first.since)
    assert second.retry_at - first.retry_at > timedelta(seconds=0.1)
    assert place.branches.of_jobs() == [branch]

    place.store.before_deletion = lambda _: None
    wait_until(lambda: second.due, what="it is time for the third attempt")
    place.sweep()
    assert place.names() == {"main"}
    assert (place.branches.of_jobs(), place.branches.failures()) == ([], {})


def test_a_failed_deletion_is_not_tried_before_its_time(place: Place) -> None:
    branch = place.left_by_cancelled()
    for _ in range(20):  # the wait doubles to the longest
        place.branches.failed(branch, ConflictError("a hook"))
    failure = place.branches.failures()[branch.address]
    assert timedelta(minutes=4) < failure.retry_at - datetime.now(UTC) < timedelta(minutes=6)
    place.sweep()
    assert place.store.deletions == []


def test_an_outage_does_not_put_the_next_attempt_off_for_long(place: Place) -> None:
    branch = place.left_by_cancelled()
    for _ in range(20):
        place.branches.failed(branch, UnavailableError("lakeFS is not available"))
    failure = place.branches.failures()[branch.address]
    assert failure.retry_at - datetime.now(UTC) < timedelta(minutes=1)


def test_lakefs_away_ends_the_pass_and_leaves_the_rest_for_the_next(place: Place) -> None:
    def fail(_: str) -> None:
        raise UnavailableError("lakeFS is not available: ConnectionError")

    for _ in range(3):
        place.left_by_cancelled()
    place.store.before_deletion = fail
    with pytest.raises(UnavailableError):
        place.sweep()
    assert len(place.store.deletions) == 1
    assert len(place.branches.failures()) == 1
    place.store.before_deletion = lambda _: None
    wait_until(place.swept, what="all are deleted")
    assert place.names() == {"main"}
    assert place.branches.failures() == {}


def test_many_workers_delete_each_branch_once(place: Place) -> None:
    for _ in range(12):
        place.left_by_cancelled()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(place.sweep) for _ in range(4)]:
            done.result()
    assert len(place.store.deletions) == len(set(place.store.deletions)) == 12
    assert place.names() == {"main"}
    assert place.branches.of_jobs() == []


def test_a_worker_that_dies_during_a_deletion_holds_up_nobody_for_long(place: Place) -> None:
    branch = place.left_by_cancelled()
    assert place.branches.reserve(branch, 0.5)
    place.sweep()
    assert branch.name in place.names()
    wait_until(place.swept, what="the reservation is over")
    assert place.names() == {"main"}


def test_a_deletion_that_took_too_long_removes_no_record_of_a_new_run(place: Place) -> None:
    branch = place.left_by_cancelled()
    late = place.branches.reserve(branch, 0.01)
    assert late is not None
    wait_until(lambda: place.branches.reserve(branch, 60), what="the reservation is over")
    place.branches.release(branch, late, is_deleted=True)
    assert place.branches.of_jobs() == [branch]


def test_a_run_that_lost_its_lease_records_the_branch_that_it_may_have_made(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen before it makes its branch, while the job ended and was swept."""
    running, token = place.claim(), CancelToken()
    ensure_branch = place.store.ensure_branch

    def freeze(repo: str, branch: str, source: str | None = None) -> str:
        if branch == own_branch(running):
            place.ledger.finish(running, JobState.CANCELLED)
            assert place.swept()
            token.cancel(LeaseLostError("the job belongs to another worker now"))
        return ensure_branch(repo, branch, source)

    monkeypatch.setattr(place.store, "ensure_branch", freeze)
    with pytest.raises(LeaseLostError):
        place.upload(running, token)
    assert own_branch(running) in place.names()
    place.sweep()
    assert place.names() == {"main"}
