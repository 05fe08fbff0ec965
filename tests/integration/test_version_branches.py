"""The commit of each registered version is the head of a branch until the version is deleted."""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import redis

from shared.cancellation import CancelToken
from shared.errors import ConflictError, UnavailableError
from shared.jobs import JobKind
from shared.lakefs.listing import RepositoryListing
from shared.lakefs.store import LakeFSStore
from shared.ledger import Ledger, OwnedBranches, VersionBranch
from shared.registry import ModelRegistry
from shared.settings import LakeFSSettings, LedgerSettings, MLflowSettings, WorkerSettings
from tests.integration.conftest import NewRun
from tests.processes import wait_until
from workers.lifecycle.branch_sweeper import BranchSweeper
from workers.lifecycle.register import Register
from workers.lifecycle.version_branches import VersionBranches, branch_name

HOUR = 3600.0


class HookedStore(LakeFSStore):
    """A lakeFS whose hook may refuse a new branch."""

    hook: Callable[[], None] = staticmethod(lambda: None)

    def ensure_branch(self, repo: str, branch: str, source: str | None = None) -> str:
        self.hook()
        return super().ensure_branch(repo, branch, source)


class Place:
    """A repository, registrations of its commits, and a sweeper that compares when it is told."""

    def __init__(
        self, client: "redis.Redis", settings: LedgerSettings, lakefs: LakeFSSettings, mlflow: str
    ) -> None:
        self.branches = OwnedBranches(client, settings)
        self.store = HookedStore(lakefs)
        self.listing = RepositoryListing(lakefs)
        self.registry = ModelRegistry(MLflowSettings(tracking_uri=mlflow))
        self.versions = VersionBranches(self.store, self.listing, self.registry, self.branches)
        worker = WorkerSettings(version_branches_seconds=HOUR)
        ledger = Ledger(client, settings)
        self.sweeper = BranchSweeper(
            ledger, self.branches, self.store, self.versions, worker, reserve_seconds=30
        )
        self.repo = self.store.ensure_repository(f"test-{uuid.uuid4().hex[:12]}").name
        self.name = f"model-{uuid.uuid4().hex[:12]}"

    def commit(self, file: Path) -> str:
        """Commit a model; each commit is another one."""
        data = uuid.uuid4().bytes
        file.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.store.put(
            self.repo,
            "main",
            "m/weights",
            file,
            sha256=sha256,
            token=CancelToken(),
            on_bytes=lambda _: None,
        )
        return self.store.commit_changes(self.repo, "main", "a model")

    def held(self) -> dict[str, str]:
        """Return the commits at the heads of all branches but the default one."""
        heads = self.listing.branches(self.repo, "")
        return {name: commit for name, commit in heads.items() if name != "main"}

    def branch(self, version: str, commit: str, name: str = "") -> dict[str, str]:
        """Return what holds a version."""
        return {branch_name(name or self.name, version, commit): commit}

    def sweep(self) -> None:
        """Make one comparison."""
        self.branches.give_turn_back()
        self.sweeper.sweep_versions()

    def close(self) -> None:
        """Give the connections back."""
        self.store.close()
        self.listing.close()


@pytest.fixture
def place(
    redis_client: "redis.Redis",
    ledger_settings: LedgerSettings,
    lakefs_server: LakeFSSettings,
    mlflow_server: str,
) -> Iterator[Place]:
    place = Place(redis_client, ledger_settings, lakefs_server, mlflow_server)
    yield place
    place.close()


@pytest.fixture
def client(mlflow_server: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(mlflow_server, mlflow_server)


@pytest.fixture
def commit(place: Place, tmp_path: Path) -> Callable[[], str]:
    return lambda: place.commit(tmp_path / "weights")


Submit = Callable[..., dict[str, Any]]


@pytest.fixture
def submit(place: Place, new_run: NewRun) -> Submit:
    """Register a commit, as this version of the platform does or as one before it."""
    now = Register(place.registry, place.store, place.versions.hold)
    before = Register(place.registry, place.store)

    def run(commit_id: str, *, is_old: bool = False, **changes: Any) -> dict[str, Any]:
        request = {
            "registered_name": place.name,
            "task": "of-a-plugin",
            "engine": "plugin",
            "lakefs_repo": place.repo,
            "commit_id": commit_id,
            "path": "m",
        } | changes
        return (before if is_old else now)(new_run(JobKind.REGISTER, request).context)

    return run


def test_each_registered_version_is_the_head_of_a_branch_and_deleted_with_it(
    place: Place, submit: Submit, commit: Callable[[], str], client: mlflow.MlflowClient
) -> None:
    first, second = commit(), commit()
    assert "note" not in submit(first)
    submit(second)
    submit(second, registered_name=f"{place.name}.copy")
    copy = place.branch("1", second, f"{place.name}.copy")
    assert place.held() == place.branch("1", first) | place.branch("2", second) | copy
    place.sweep()
    assert place.held() == place.branch("1", first) | place.branch("2", second) | copy

    client.delete_model_version(place.name, "1")
    place.sweep()
    assert place.held() == place.branch("2", second) | copy
    client.delete_registered_model(place.name)
    place.sweep()
    assert place.held() == copy
    assert [branch.model for branch in place.branches.of_versions() if branch.repo == place.repo]


def test_versions_of_an_earlier_platform_and_of_other_clients_get_theirs(
    place: Place, submit: Submit, commit: Callable[[], str], client: mlflow.MlflowClient
) -> None:
    old, by_hand = commit(), commit()
    submit(old, is_old=True)
    assert place.held() == {}
    client.create_model_version(place.name, f"lakefs://{place.repo}/{by_hand[:16]}/m")
    client.create_model_version(place.name, "s3://elsewhere/model")
    place.sweep()
    assert place.held() == place.branch("1", old) | place.branch("2", by_hand)


def test_a_name_that_is_registered_again_begins_at_version_1_with_its_own_commit(
    place: Place, submit: Submit, commit: Callable[[], str], client: mlflow.MlflowClient
) -> None:
    first, second = commit(), commit()
    submit(first)
    client.delete_registered_model(place.name)
    submit(second)
    assert place.held() == place.branch("1", first) | place.branch("1", second)
    place.sweep()
    assert place.held() == place.branch("1", second)


def test_a_version_that_is_registered_again_before_the_deletion_keeps_its_branch(
    place: Place,
    submit: Submit,
    commit: Callable[[], str],
    client: mlflow.MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = commit()
    submit(first)
    client.delete_registered_model(place.name)
    reserve = place.branches.reserve

    def register_first(*arguments: Any) -> str | None:
        monkeypatch.undo()
        submit(first)
        return reserve(*arguments)

    monkeypatch.setattr(place.branches, "reserve", register_first)
    place.sweep()
    assert place.held() == place.branch("1", first)


def test_a_branch_that_somebody_deleted_is_made_again(
    place: Place, submit: Submit, commit: Callable[[], str]
) -> None:
    first = commit()
    submit(first)
    (name,) = place.held()
    place.store.delete_branch(place.repo, name)
    place.sweep()
    assert place.held() == place.branch("1", first)


def test_a_branch_that_somebody_commits_to_is_theirs(
    place: Place, submit: Submit, commit: Callable[[], str], client: mlflow.MlflowClient
) -> None:
    first = commit()
    submit(first)
    (name,) = place.held()
    place.store.delete_files(place.repo, name, ["m/weights"])
    moved = place.store.commit_changes(place.repo, name, "mine")
    place.sweep()
    failure = place.branches.failures()[f"{place.repo}/{name}"]
    assert moved in failure.reason
    client.delete_registered_model(place.name)
    wait_until(lambda: failure.due, what="it is time for another attempt")
    place.sweep()
    assert place.held() == {name: moved}
    assert place.repo not in {branch.repo for branch in place.branches.of_versions()}
    assert f"{place.repo}/{name}" not in place.branches.failures()


def test_a_registration_succeeds_where_lakefs_refuses_the_branch_and_says_so(
    place: Place, submit: Submit, commit: Callable[[], str]
) -> None:
    def refuse() -> None:
        raise ConflictError("lakeFS answered 412: pre-create-branch hook 'names' failed")

    first = commit()
    place.store.hook = refuse
    assert "hook 'names' failed" in submit(first)["note"]
    ((address, failure),) = place.branches.failures().items()
    assert failure.branch == place.branches.of_versions()[0]
    assert isinstance(failure.branch, VersionBranch)
    assert address == f"{place.repo}/{branch_name(place.name, '1', first)}"
    del place.store.hook
    wait_until(lambda: failure.due, what="it is time for another attempt")
    place.sweep()
    assert place.held() == place.branch("1", first)
    assert address not in place.branches.failures()


def test_a_version_without_its_repository_is_reported_until_it_is_deleted(
    place: Place, submit: Submit, commit: Callable[[], str], client: mlflow.MlflowClient
) -> None:
    submit(commit())
    gone = f"lakefs://gone-{uuid.uuid4().hex[:8]}/{'a' * 64}/m"
    client.create_model_version(place.name, gone)
    place.sweep()
    (failure,) = (each for each in place.branches.failures().values() if "gone-" in each.reason)
    assert "has no repository" in failure.reason
    client.delete_model_version(place.name, "2")
    wait_until(lambda: failure.due, what="it is time for another attempt")
    place.sweep()
    assert not [each for each in place.branches.failures().values() if "gone-" in each.reason]


def test_one_worker_compares_within_the_period_and_one_that_could_not_lets_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def away() -> list[VersionBranch]:
        compared.append("away")
        raise UnavailableError("MLflow is not available")

    def here() -> list[VersionBranch]:
        compared.append("here")
        return []

    monkeypatch.setattr(place.versions, "compare", away)
    with pytest.raises(UnavailableError):
        place.sweeper.sweep_versions()
    monkeypatch.setattr(place.versions, "compare", here)
    for _ in range(3):
        place.sweeper.sweep_versions()
    assert compared == ["away", "here"]
