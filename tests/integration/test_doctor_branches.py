"""The doctor lists the branches that the platform could not delete, make or account for."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from client.doctor.branches import branches
from client.doctor.findings import Finding, Level
from client.doctor.scene import Scene
from embedded.data_directory import DataDirectory
from shared.errors import ConflictError
from shared.jobs import JobKind
from shared.lakefs.listing import RepositoryListing
from shared.lakefs.store import LakeFSStore
from shared.ledger import JobBranch, Ledger, NewJob, OwnedBranches, VersionBranch
from shared.settings import LakeFSSettings, LedgerSettings, RedisSettings, Settings
from tests.processes import free_port
from tests.servers import lakefs_running

REFUSED = ConflictError("lakeFS answered 412: hook 'guard' failed")


@pytest.fixture(scope="module")
def own_lakefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeFSSettings]:
    """A lakeFS in which no other test leaves branches."""
    with lakefs_running(tmp_path_factory.mktemp("doctor")) as settings:
        yield settings


@pytest.fixture
def store(own_lakefs: LakeFSSettings) -> Iterator[LakeFSStore]:
    with closing(LakeFSStore(own_lakefs)) as store:
        yield store


@pytest.fixture
def repo(store: LakeFSStore) -> Iterator[str]:
    name = store.ensure_repository(f"test-{uuid.uuid4().hex[:12]}").name
    yield name
    control = store._control
    control.call(control.repositories.delete_repository, name)


@pytest.fixture
def scene(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    own_lakefs: LakeFSSettings,
    tmp_path: Path,
) -> Scene:
    settings = Settings(redis=redis_settings, ledger=ledger_settings, lakefs=own_lakefs)
    return Scene(settings, DataDirectory(tmp_path), None, f"http://127.0.0.1:{free_port()}")


@pytest.fixture
def owned(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> OwnedBranches:
    return OwnedBranches(redis_client, ledger_settings)


def warnings(scene: Scene) -> list[Finding]:
    return [finding for finding in branches(scene) if finding.level is Level.WARNING]


def test_nothing_left_behind_is_well(scene: Scene, repo: str) -> None:
    (finding,) = branches(scene)
    assert finding.level is Level.OK


def test_failures_are_listed_with_their_reasons(
    scene: Scene, repo: str, owned: OwnedBranches
) -> None:
    job = JobBranch(repo=repo, name=f"job-{uuid.uuid4()}", job_id="1")
    version = VersionBranch(repo=repo, name="keep-m-v3-c", model="m", version="3", commit="c")
    for branch in (job, version):
        owned.record(branch)
        owned.failed(branch, REFUSED)
    of_job, of_version = warnings(scene)
    assert job.name in of_job.detail
    assert "hook 'guard' failed" in of_job.detail
    assert f"branches/{job.name}" in of_job.mend
    assert "version 3 of 'm'" in of_version.detail
    assert "hook 'guard' failed" in of_version.detail


def test_branches_of_jobs_that_nobody_recorded_are_listed_with_a_command_that_deletes_them(
    scene: Scene,
    store: LakeFSStore,
    repo: str,
    ledger: Ledger,
    owned: OwnedBranches,
    own_lakefs: LakeFSSettings,
) -> None:
    job = NewJob(JobKind.UPLOAD, {}, queue="uploads", model="m", max_attempts=3)
    waiting = f"job-{ledger.accept(job)[0].id}"
    recorded, *left = (f"job-{uuid.uuid4()}" for _ in range(3))
    owned.record(JobBranch(repo=repo, name=recorded, job_id="1"))
    for name in (waiting, recorded, *left, "job-mine", "feature"):
        store.ensure_branch(repo, name)

    (finding,) = warnings(scene)
    assert all(name in finding.detail for name in left)
    assert not any(name in finding.detail for name in (waiting, recorded, "job-mine"))

    command = finding.mend.partition(": ")[2]
    keys = {
        "LAKEFS_ACCESS_KEY_ID": own_lakefs.access_key_id,
        "LAKEFS_SECRET_ACCESS_KEY": own_lakefs.secret_access_key.get_secret_value(),
    }
    subprocess.run(["bash", "-c", command], env={"PATH": "/usr/bin:/bin", **keys}, check=True)
    with closing(RepositoryListing(own_lakefs)) as listing:
        assert set(listing.branches(repo, "")) == {
            *("main", waiting, recorded, "job-mine", "feature")
        }
    assert warnings(scene) == []


def test_what_cannot_be_asked_is_unknown(scene: Scene) -> None:
    away = LakeFSSettings(endpoint=f"http://127.0.0.1:{free_port()}")
    settings = scene.settings.model_copy(update={"lakefs": away})
    (finding,) = branches(Scene(settings, scene.directory, None, scene.api_url))
    assert finding.level is Level.UNKNOWN
