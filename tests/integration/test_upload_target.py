"""An upload looks at its target first, and says what lakeFS says about it."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.cancellation import CancelToken
from shared.errors import ConflictError, InvalidInputError, LifecycleError, NotFoundError
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings, StorageSettings
from shared.staging import StagingArea
from tests.integration.conftest import NewRun
from tests.lakefs_faults import Answer, Call, FaultyLakeFS, faulty_lakefs, hook_refuses
from workers.lifecycle.upload import Upload

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 300_000}


class Host:
    """A host whose staging area has one model, put there by hand."""

    def __init__(
        self, root: Path, store: LakeFSStore, settings: LakeFSSettings, new_run: NewRun
    ) -> None:
        self.store = store
        self.staging = StagingArea(StorageSettings(staging_dir=root, reserve_bytes=0))
        self.model = self.staging.root / "mine"
        self._upload = Upload(store, self.staging, settings)
        self._new_run = new_run
        self.stage(FILES)

    def stage(self, files: dict[str, bytes]) -> None:
        """Put files into the model's directory."""
        self.model.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (self.model / name).write_bytes(data)

    def upload(self, repo: str, **request: Any) -> dict[str, Any]:
        """Upload the model and return the job's result."""
        request = {"repo_name": repo, "local_model_name": "mine"} | request
        return self._upload(self._new_run(JobKind.UPLOAD, request).context)

    def refused(self, repo: str, **request: Any) -> LifecycleError:
        """Upload the model and return why that was refused before a byte was sent."""

        def put(*_: object, **__: object) -> None:
            raise AssertionError("a file was sent")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.store, "put", put)
            with pytest.raises(LifecycleError) as caught:
                self.upload(repo, **request)
        assert not caught.value.retryable
        return caught.value


@pytest.fixture
def host(
    store: LakeFSStore, lakefs_server: LakeFSSettings, new_run: NewRun, tmp_path: Path
) -> Host:
    return Host(tmp_path / "staging", store, lakefs_server, new_run)


def put(store: LakeFSStore, repo: str, path: str, source: Path, branch: str = "main") -> None:
    """Write a file to a branch as another client does, without a commit."""
    source.write_bytes(path.encode())
    store.put(
        repo,
        branch,
        path,
        source,
        sha256=hashlib.sha256(path.encode()).hexdigest(),
        token=CancelToken(),
        on_bytes=lambda _: None,
    )


def tag(store: LakeFSStore, repo: str, name: str, ref: str = "main") -> None:
    store._control.call(store._control.tags.create_tag, repo, {"id": name, "ref": ref})


def branches(store: LakeFSStore, repo: str) -> list[str]:
    listing = store._control.pages(store._control.branches.list_branches, repo)
    return [str(branch.id) for branch in listing]


def test_uncommitted_changes_are_counted_and_the_way_out_is_named(
    host: Host, repo: str, tmp_path: Path
) -> None:
    for path in ("others/a", "others/b"):
        put(host.store, repo, path, tmp_path / "source")
    error = host.refused(repo)
    assert error.specific_code == "branch_has_uncommitted_changes"
    for said in ("'main'", repo, "2 uncommitted", "'others/a'", "commit", "branch reset"):
        assert said in error.detail
    assert branches(host.store, repo) == ["main"]
    host.store.commit_changes(repo, "main", "settled")
    assert host.upload(repo)["files"] == len(FILES)


def test_changes_that_come_during_the_upload_are_named_too(
    host: Host, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = host.store.merge

    def dirtied(*args: Any, **options: Any) -> str:
        put(host.store, repo, "others/a", tmp_path / "source")
        return merge(*args, **options)

    monkeypatch.setattr(host.store, "merge", dirtied)
    with pytest.raises(ConflictError) as caught:
        host.upload(repo)
    assert caught.value.specific_code == "branch_has_uncommitted_changes"
    assert branches(host.store, repo) == ["main"]


def test_a_tag_and_a_commit_are_not_branches(host: Host, repo: str) -> None:
    tag(host.store, repo, "v1")
    commit = host.store.commit_id(repo, "main")
    for name, what in (("v1", "is a tag"), (commit, "is a commit"), (commit[:12], "is a commit")):
        error = host.refused(repo, branch=name)
        assert (error.specific_code, error.field) == ("not_a_branch", "branch")
        assert what in error.detail
    assert branches(host.store, repo) == ["main"]


def test_a_read_only_repository_is_refused(host: Host, repo: str) -> None:
    api = host.store._control.repositories
    namespace = host.store.ensure_repository(repo).storage_namespace
    creation = {
        "name": f"{repo}-r",
        "storage_namespace": f"{namespace}-r",
        "default_branch": "main",
        "read_only": True,
    }
    host.store._control.call(api.create_repository, creation)
    error = host.refused(f"{repo}-r")
    assert error.specific_code == "repository_read_only"
    assert "read-only" in error.detail


def test_the_default_branch_is_the_repositorys_own(host: Host, repo: str) -> None:
    api = host.store._control.repositories
    namespace = host.store.ensure_repository(repo).storage_namespace
    creation = {
        "name": f"{repo}-t",
        "storage_namespace": f"{namespace}-t",
        "default_branch": "trunk",
    }
    host.store._control.call(api.create_repository, creation)
    result = host.upload(f"{repo}-t")
    assert result["branch"] == "trunk"
    assert result["commit_id"] == host.store.commit_id(f"{repo}-t", "trunk")
    assert branches(host.store, f"{repo}-t") == ["trunk"]


def test_a_protection_rule_for_the_jobs_branches_is_named(
    host: Host, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.store, "protecting_rule", lambda _repo, branch: branch[:4] + "*")
    error = host.refused(repo)
    assert error.specific_code == "job_branch_protected"
    assert "'job-*'" in error.detail
    assert "settings" in error.detail


@pytest.mark.parametrize(
    ("status", "rules", "found"),
    [
        (200, ["main", "job-?*", "job-*"], "job-?*"),
        (200, ["main", "[a-k]*"], "[a-k]*"),
        (200, ["main", "release_*"], None),
        (200, [], None),
        (401, None, None),
        (403, None, None),
        (404, None, None),
        (501, None, None),
    ],
)
def test_protection_rules_are_matched_where_they_may_be_read(
    lakefs_server: LakeFSSettings, status: int, rules: list[str] | None, found: str | None
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/repositories/models/settings/branch_protection"
        return httpx.Response(status, json=[{"pattern": rule} for rule in rules or ()])

    with closing(LakeFSStore(lakefs_server)) as store:
        store._http.close()
        store._http = httpx.Client(
            transport=httpx.MockTransport(answer), base_url="http://lakefs.test"
        )
        assert store.protecting_rule("models", "job-0190") == found


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultyLakeFS]:
    with faulty_lakefs(tmp_path / "faulty") as lakefs:
        yield lakefs


@pytest.fixture
def store_with_faults(faulty: FaultyLakeFS) -> Iterator[LakeFSStore]:
    with closing(LakeFSStore(faulty.settings)) as store:
        store.ensure_repository("models")
        yield store


@pytest.mark.parametrize("branch", ["main", "new"])
def test_a_hook_that_refuses_a_branch_has_its_words_passed_on(
    faulty: FaultyLakeFS,
    store_with_faults: LakeFSStore,
    new_run: NewRun,
    tmp_path: Path,
    branch: str,
) -> None:
    host = Host(tmp_path / "staging", store_with_faults, faulty.settings, new_run)
    faulty.on("create_branch", hook_refuses("pre-create-branch", "names begin with team-"))
    error = host.refused("models", branch=branch)
    assert "pre-create-branch hook" in error.detail
    assert "names begin with team-" in error.detail


@pytest.mark.parametrize("presign", [False, True])
def test_data_that_garbage_collection_took_is_said_to_be_gone(
    tmp_path: Path, presign: bool
) -> None:
    def gone(call: Call) -> Answer | None:
        if presign and not call.path.startswith("/api/"):
            return Answer(404, "NoSuchKey")
        return Answer(410, "No data") if call.name == "get_object" and not presign else None

    with (
        faulty_lakefs(tmp_path / "faulty", presign=presign) as faulty,
        closing(LakeFSStore(faulty.settings)) as store,
    ):
        store.ensure_repository("models")
        put(store, "models", "m/weights", tmp_path / "source")
        faulty.before = gone
        with pytest.raises(NotFoundError) as fetched:
            store.fetch(
                "models",
                "main",
                "m/weights",
                tmp_path / "into",
                token=CancelToken(),
                on_bytes=lambda _: None,
            )
        with pytest.raises(NotFoundError) as read:
            store.read("models", "main", "m/weights", 0, 1)
    for error in (fetched.value, read.value):
        assert error.specific_code == "object_data_missing"
        assert "'m/weights'" in error.detail
        assert "garbage collection" in error.detail


def test_a_path_that_names_a_file_is_said_to_be_one(
    store: LakeFSStore, repo: str, tmp_path: Path
) -> None:
    put(store, repo, "m/config.json", tmp_path / "source")
    with pytest.raises(InvalidInputError) as caught:
        store.files(repo, "main", "m/config.json")
    assert caught.value.specific_code == "path_is_a_file"
    assert "directory, which may be 'm'" in caught.value.detail


def test_a_model_that_vanishes_during_its_upload_is_said_to_have_changed(
    host: Host, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = host.store.put

    def vanish(*args: Any, **options: Any) -> None:
        (host.model / "model.safetensors").unlink(missing_ok=True)
        send(*args, **options)

    monkeypatch.setattr(host.store, "put", vanish)
    with pytest.raises(ConflictError) as caught:
        host.upload(repo)
    assert caught.value.specific_code == "staged_model_changed"
    assert caught.value.field == "local_model_name"
    assert branches(host.store, repo) == ["main"]


def test_a_model_that_is_replaced_during_its_upload_is_not_committed_as_a_mixture(
    host: Host, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = host.store.commit_id(repo, "main")
    equalize = host.store.delete_files

    def replace(*args: Any, **options: Any) -> None:
        host.stage({"config.json": b"[]"})  # one of two files, which was sent before
        equalize(*args, **options)

    monkeypatch.setattr(host.store, "delete_files", replace)
    with pytest.raises(ConflictError) as caught:
        host.upload(repo)
    assert caught.value.specific_code == "staged_model_changed"
    assert host.store.commit_id(repo, "main") == head
    monkeypatch.undo()
    assert host.upload(repo)["files"] == len(FILES)
