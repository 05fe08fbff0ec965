"""An upload is one commit, whatever happens while it runs."""

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DigestMismatchError,
    DrainingError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings, StorageSettings
from shared.staged_models import Manifest, ManifestFile
from shared.staging import StagingArea
from tests.integration.conftest import NewRun, Run
from workers.lifecycle.upload import Upload, own_branch

MODEL = "org_model"
FILES = {"config.json": b"{}", "model.safetensors": b"w" * 3_000_000, "sub/a b.txt": b"hello"}
TOTAL = sum(map(len, FILES.values()))


class KilledError(Exception):
    """Stands for kill -9: nothing of the job's own runs after it."""


class KillerStore:
    """A store in whose call ``method`` the worker dies, after the call had its effect."""

    def __init__(self, store: LakeFSStore, method: str, calls_before: int = 0) -> None:
        self._store = store
        self._method = method
        self._calls_before = calls_before
        self.killed = False

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._store, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if name == self._method:
                self._calls_before -= 1
                if self._calls_before < 0:
                    self.killed = True
                    raise KilledError(name)
            return result

        return call


@pytest.fixture
def staging(tmp_path: Path) -> StagingArea:
    return StagingArea(StorageSettings(staging_dir=tmp_path / "staging", reserve_bytes=0))


@pytest.fixture
def upload(store: LakeFSStore, staging: StagingArea, lakefs_server: LakeFSSettings) -> Upload:
    return Upload(store, staging, lakefs_server)


def stage(
    staging: StagingArea, files: dict[str, bytes], revision: str = "a" * 40, name: str = MODEL
) -> None:
    """Put a model into the staging area as a download does."""
    directory = staging.partial(name, revision)
    for path, data in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    manifest = Manifest(
        source="huggingface",
        repo_id="org/model",
        revision=revision,
        finished_at=datetime.now(UTC),
        files=tuple(
            ManifestFile.of(directory, path, hashlib.sha256(data).hexdigest())
            for path, data in files.items()
        ),
    )
    with staging.lock(name, CancelToken()):
        staging.publish(name, manifest)


def begin(new_run: NewRun, repo: str, *, earlier: Run | None = None, **changes: Any) -> Run:
    request = {"repo_name": repo, "local_model_name": MODEL} | changes
    if earlier is None:
        return new_run(JobKind.UPLOAD, request)
    job = earlier.context.job
    return new_run(JobKind.UPLOAD, job.request, job_id=job.id, attempts=job.attempts + 1)


def content(store: LakeFSStore, repo: str, ref: str = "main") -> dict[str, str | None]:
    found = store.files(repo, ref, MODEL, missing_ok=True)
    return {file.path: file.sha256 for file in found}


def digests(files: dict[str, bytes]) -> dict[str, str | None]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def history(store: LakeFSStore, repo: str, branch: str = "main") -> list[dict[str, str]]:
    """Return the metadata of all commits of a branch, the newest first, without the first one."""
    commits = []
    commit = store.commit(repo, branch)
    while commit.parents:
        commits.append(commit.metadata)
        commit = store.commit(repo, commit.parents[0])
    return commits


def is_there(store: LakeFSStore, repo: str, run: Run) -> bool:
    try:
        store.commit_id(repo, own_branch(run.context.job))
    except NotFoundError:
        return False
    return True


def test_a_model_becomes_one_commit(
    upload: Upload, store: LakeFSStore, staging: StagingArea, new_run: NewRun
) -> None:
    stage(staging, FILES)
    run = begin(new_run, f"new-{new_run(JobKind.UPLOAD, {}).context.job.id[:12]}")
    result = upload(run.context)
    repo = result["repo_name"]
    assert result == {
        "commit_id": store.commit_id(repo, "main"),
        "repo_name": repo,
        "branch": "main",
        "path": MODEL,
        "files": 3,
        "uploaded_bytes": TOTAL,
        "skipped_bytes": 0,
    }
    assert content(store, repo, result["commit_id"]) == digests(FILES)
    (metadata,) = history(store, repo)
    assert metadata["job_id"] == run.context.job.id
    assert metadata["model_source"] == "huggingface"
    assert metadata["model_name"] == "org/model"
    assert metadata["revision"] == "a" * 40
    assert not is_there(store, repo, run)
    run.context.flush()
    assert (run.reports[-1].completed, run.reports[-1].total) == (TOTAL, TOTAL)


def test_an_unchanged_model_makes_no_commit(
    upload: Upload, store: LakeFSStore, staging: StagingArea, new_run: NewRun, repo: str
) -> None:
    stage(staging, FILES)
    first = upload(begin(new_run, repo).context)
    again = begin(new_run, repo)
    result = upload(again.context)
    assert result["commit_id"] == first["commit_id"]
    assert (result["uploaded_bytes"], result["skipped_bytes"]) == (0, TOTAL)
    assert len(history(store, repo)) == 1
    again.context.flush()
    assert again.reports[-1].completed == TOTAL


def test_only_what_changed_is_sent_and_what_went_is_deleted(
    upload: Upload, store: LakeFSStore, staging: StagingArea, new_run: NewRun, repo: str
) -> None:
    stage(staging, FILES)
    upload(begin(new_run, repo).context)
    changed = {"config.json": b'{"a": 1}', "model.safetensors": FILES["model.safetensors"]}
    stage(staging, changed, revision="b" * 40)
    result = upload(begin(new_run, repo, commit_message="the second").context)
    assert (result["files"], result["uploaded_bytes"], result["skipped_bytes"]) == (2, 8, 3_000_000)
    assert content(store, repo) == digests(changed)
    assert store.commit(repo, "main").message == "the second"
    assert len(history(store, repo)) == 2


def test_a_model_put_there_by_hand_is_uploaded_too(
    upload: Upload, store: LakeFSStore, staging: StagingArea, new_run: NewRun, repo: str
) -> None:
    (staging.root / MODEL).mkdir(parents=True)
    (staging.root / MODEL / "config.json").write_bytes(b"{}")
    upload(begin(new_run, repo).context)
    assert content(store, repo) == digests({"config.json": b"{}"})
    assert history(store, repo)[0]["model_source"] == "local"


def test_another_branch_is_made_from_the_default_one(
    upload: Upload, store: LakeFSStore, staging: StagingArea, new_run: NewRun, repo: str
) -> None:
    stage(staging, FILES)
    result = upload(begin(new_run, repo, branch="dev").context)
    assert store.commit_id(repo, "dev") == result["commit_id"]
    assert content(store, repo, "main") == {}


@pytest.mark.parametrize(
    ("method", "calls_before"),
    [
        ("ensure_repository", 0),
        ("branch_head", 0),
        ("find_commit", 0),
        ("uncommitted", 0),
        ("ensure_branch", 0),
        ("put", 0),
        ("put", 2),
        ("delete_files", 0),
        ("commit_changes", 0),
        ("merge", 0),
        ("delete_branch", 0),
    ],
)
def test_a_worker_killed_anywhere_leaves_one_commit(
    *,
    upload: Upload,
    store: LakeFSStore,
    staging: StagingArea,
    lakefs_server: LakeFSSettings,
    new_run: NewRun,
    repo: str,
    method: str,
    calls_before: int,
) -> None:
    stage(staging, FILES)
    run = begin(new_run, repo)
    killer = KillerStore(store, method, calls_before)
    dying = Upload(killer, staging, lakefs_server)  # type: ignore[arg-type]
    with pytest.raises(KilledError):
        dying(run.context)
    assert killer.killed
    again = begin(new_run, repo, earlier=run)
    result = upload(again.context)
    assert [metadata["job_id"] for metadata in history(store, repo)] == [run.context.job.id]
    assert content(store, repo, result["commit_id"]) == digests(FILES)
    assert result["commit_id"] == store.commit_id(repo, "main")
    assert (result["uploaded_bytes"], result["skipped_bytes"]) == (TOTAL, 0)
    assert not is_there(store, repo, again)


def test_a_retry_after_the_commit_needs_no_staged_files(
    upload: Upload,
    store: LakeFSStore,
    staging: StagingArea,
    lakefs_server: LakeFSSettings,
    new_run: NewRun,
    repo: str,
) -> None:
    stage(staging, FILES)
    run = begin(new_run, repo)
    with pytest.raises(KilledError):
        Upload(KillerStore(store, "merge"), staging, lakefs_server)(run.context)  # type: ignore[arg-type]
    shutil.rmtree(staging.root / MODEL)
    assert upload(begin(new_run, repo, earlier=run).context)["files"] == 3


def test_files_sent_before_a_crash_are_not_sent_again(
    upload: Upload,
    store: LakeFSStore,
    staging: StagingArea,
    lakefs_server: LakeFSSettings,
    new_run: NewRun,
    repo: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage(staging, FILES)
    run = begin(new_run, repo)
    with pytest.raises(KilledError):
        Upload(KillerStore(store, "delete_files"), staging, lakefs_server)(run.context)  # type: ignore[arg-type]
    monkeypatch.setattr(store, "put", None)
    again = begin(new_run, repo, earlier=run)
    assert upload(again.context)["uploaded_bytes"] == TOTAL
    assert {report.completed for report in again.reports} == {TOTAL}


def test_a_model_put_in_the_same_place_meanwhile_does_not_mix(
    upload: Upload,
    store: LakeFSStore,
    staging: StagingArea,
    lakefs_server: LakeFSSettings,
    new_run: NewRun,
    repo: str,
) -> None:
    first = {"config.json": b"1", "1-of-1.safetensors": b"one"}
    stage(staging, first)
    run = begin(new_run, repo)
    with pytest.raises(KilledError):
        Upload(KillerStore(store, "commit_changes"), staging, lakefs_server)(run.context)  # type: ignore[arg-type]
    stage(staging, {"config.json": b"2", "1-of-2.safetensors": b"two"}, revision="b" * 40)
    upload(begin(new_run, repo).context)
    stage(staging, first)
    upload(begin(new_run, repo, earlier=run).context)
    assert content(store, repo) == digests(first)
    assert len(history(store, repo)) == 2


def test_uploads_to_one_branch_at_once_are_one_commit_each(
    upload: Upload, store: LakeFSStore, staging: StagingArea, new_run: NewRun, repo: str
) -> None:
    names = [f"model-{number}" for number in range(6)]
    for name in names:
        stage(staging, {"config.json": name.encode()}, name=name)
    runs = [begin(new_run, repo, local_model_name=name) for name in names]
    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(upload, [run.context for run in runs]))
    jobs = [metadata["job_id"] for metadata in history(store, repo)]
    assert sorted(jobs) == sorted(run.context.job.id for run in runs)
    assert {file.path for file in store.files(repo, "main", "")} == {
        f"{name}/config.json" for name in names
    }


def test_a_cancelled_upload_leaves_nothing(
    upload: Upload, store: LakeFSStore, staging: StagingArea, new_run: NewRun, repo: str
) -> None:
    stage(staging, FILES)
    run = begin(new_run, repo)
    put = store.put

    def cancel(*args: Any, **options: Any) -> None:
        run.token.cancel(CancelledError("by the client"))
        put(*args, **options)

    store.put = cancel  # type: ignore[method-assign]
    with pytest.raises(CancelledError):
        upload(run.context)
    assert history(store, repo) == []
    assert content(store, repo) == {}
    assert not is_there(store, repo, run)


@pytest.mark.parametrize(
    ("error", "attempts", "kept"),
    [
        (UnavailableError("lakeFS fell over"), 1, True),
        (UnavailableError("lakeFS fell over"), 3, False),
        (DrainingError("the worker goes"), 3, True),
        (DigestMismatchError("the disk rots"), 1, False),
    ],
)
def test_the_branch_of_the_job_stays_only_for_a_run_to_come(
    *,
    upload: Upload,
    store: LakeFSStore,
    staging: StagingArea,
    new_run: NewRun,
    repo: str,
    error: Exception,
    attempts: int,
    kept: bool,
) -> None:
    stage(staging, FILES)
    request = {"repo_name": repo, "local_model_name": MODEL}
    run = new_run(JobKind.UPLOAD, request, attempts=attempts)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    store.put = fail  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        upload(run.context)
    assert is_there(store, repo, run) is kept
    assert history(store, repo) == []


def test_a_model_that_is_not_staged_is_refused(
    upload: Upload, staging: StagingArea, new_run: NewRun, repo: str
) -> None:
    with pytest.raises(NotFoundError, match=MODEL):
        upload(begin(new_run, repo).context)
    (staging.root / MODEL).mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="no files"):
        upload(begin(new_run, repo).context)


def test_a_model_that_is_staged_at_another_revision_is_refused(
    upload: Upload, staging: StagingArea, store: LakeFSStore, new_run: NewRun, repo: str
) -> None:
    stage(staging, FILES, "b" * 40)
    with pytest.raises(NotFoundError, match="not at aaaa") as refused:
        upload(begin(new_run, repo, revision="a" * 40).context)
    assert refused.value.specific_code == "model_not_staged"
    assert upload(begin(new_run, repo, revision="b" * 40).context)["commit_id"]
