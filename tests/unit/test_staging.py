"""The staging area: whole models or none, one writer at a time, nothing outside of it."""

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NoReturn

import pytest

from shared import directories
from shared import staging as staging_module
from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    InsufficientDiskError,
    InvalidInputError,
    NotFoundError,
)
from shared.settings import StorageSettings
from shared.staged_models import MANIFEST, Manifest, ManifestFile, StagedModel
from shared.staging import PARTIAL_KEPT_SECONDS, StagingArea

ROOT = Path(__file__).parents[2]
NAME = "org_model"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def staging(tmp_path: Path) -> StagingArea:
    return area(tmp_path / "models")


@pytest.fixture
def token() -> CancelToken:
    return CancelToken()


def area(root: Path) -> StagingArea:
    return StagingArea(StorageSettings(staging_dir=root, reserve_bytes=1000))


def publish(staging: StagingArea, commit: str, files: dict[str, bytes], name: str = NAME) -> None:
    """Do what a download does once its files are there."""
    directory = staging.partial(name, commit)
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    entries = tuple(
        ManifestFile.of(directory, path, hashlib.sha256(content).hexdigest())
        for path, content in files.items()
    )
    manifest = Manifest(
        source="huggingface",
        repo_id=name.replace("_", "/"),
        revision=commit,
        finished_at=datetime.now(UTC),
        files=entries,
    )
    staging.publish(name, manifest)


def contents(model: StagedModel) -> dict[str, bytes]:
    return {file.path: (model.path / file.path).read_bytes() for file in model.files}


def revision_of(commit: str) -> dict[str, bytes]:
    """Many files that tell their commit, so that a mixture shows."""
    return {f"{folder}/{n}": commit.encode() for folder in ("x", "y") for n in range(5)}


def test_a_published_model_is_listed_with_its_files_and_where_it_came_from(
    staging: StagingArea,
) -> None:
    before = datetime.now(UTC)
    publish(staging, OLD, {"config.json": b"{}", "onnx/model.onnx": b"12345"})
    (model,) = staging.list()
    assert contents(model) == {"config.json": b"{}", "onnx/model.onnx": b"12345"}
    assert (model.name, model.size_bytes, model.revision) == (NAME, 7, OLD)
    assert (model.source, model.repo_id) == ("huggingface", "org/model")
    assert model.files[0].sha256 == hashlib.sha256(b"{}").hexdigest()
    assert before <= model.modified_at <= datetime.now(UTC)


def test_a_replaced_state_stays_until_the_job_that_needs_it_has_ended(tmp_path: Path) -> None:
    ended: set[str] = set()
    settings = StorageSettings(staging_dir=tmp_path / "models", reserve_bytes=0)
    staging = StagingArea(settings, ended.__contains__)
    publish(staging, OLD, {"config.json": b"old"})
    old = staging.open(NAME)
    staging.claim(old, "an import")
    publish(staging, NEW, {"config.json": b"new"})
    publish(staging, "c" * 40, {"config.json": b"newer"})
    assert contents(staging.open(NAME, old.staged_id)) == {"config.json": b"old"}
    assert contents(staging.open(NAME)) == {"config.json": b"newer"}
    staging.collect_unclaimed(NAME)
    assert staging.open(NAME, old.staged_id).revision == OLD
    ended.add("an import")
    staging.collect_unclaimed(NAME)
    with pytest.raises(NotFoundError, match=f"not in the state {old.staged_id}"):
        staging.open(NAME, old.staged_id)
    assert [model.name for model in staging.list()] == [NAME]


def test_replaced_states_of_other_models_are_collected_with_the_expired(tmp_path: Path) -> None:
    ended: set[str] = set()
    settings = StorageSettings(staging_dir=tmp_path / "models", reserve_bytes=0)
    staging = StagingArea(settings, ended.__contains__)
    publish(staging, OLD, {"config.json": b"old"})
    staging.claim(staging.open(NAME), "an import")
    publish(staging, NEW, {"config.json": b"new"})
    staging.claim(staging.open(NAME), "another import")
    staging.collect_expired()
    assert list((staging.root / ".former").glob("*/*"))
    ended |= {"an import", "another import"}
    with (staging.root / ".locks" / NAME).open() as uploading:
        fcntl.flock(uploading, fcntl.LOCK_SH)
        staging.collect_expired()
        assert list((staging.root / ".former").glob("*/*")), "an upload may be reading it"
    staging.collect_expired()
    assert not list((staging.root / ".former").iterdir())
    assert not list((staging.root / ".claims").iterdir())


def test_a_state_that_no_job_needs_goes_when_it_is_replaced(staging: StagingArea) -> None:
    publish(staging, OLD, {"config.json": b"old"})
    old = staging.open(NAME)
    publish(staging, NEW, {"config.json": b"new"})
    with pytest.raises(NotFoundError):
        staging.open(NAME, old.staged_id)


def test_two_selections_of_one_commit_are_two_states(staging: StagingArea) -> None:
    publish(staging, OLD, {"config.json": b"{}", "README.md": b"hello"})
    whole = staging.open(NAME).staged_id
    publish(staging, OLD, {"config.json": b"{}"})
    assert staging.open(NAME).staged_id != whole


def test_an_area_that_is_not_there_yet_is_empty(staging: StagingArea) -> None:
    assert staging.list() == ()
    staging.collect_expired()


def test_what_is_being_fetched_is_not_a_model(staging: StagingArea) -> None:
    (staging.partial(NAME, OLD) / "config.json").write_bytes(b"{}")
    assert staging.list() == ()
    with pytest.raises(NotFoundError, match=NAME) as caught:
        staging.open(NAME)
    assert caught.value.field == "local_model_name"


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "", ".partial", "a/b", "/etc", "a\\b", "a\0b", "a..b", "a" * 300]
)
def test_a_name_that_is_not_one_of_the_area_is_refused(staging: StagingArea, name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        staging.open(name)
    assert caught.value.field == "local_model_name"


def test_a_newer_revision_takes_the_place_of_the_older_one(staging: StagingArea) -> None:
    publish(staging, OLD, {"config.json": b"old", "gone.txt": b""})
    publish(staging, NEW, {"config.json": b"new"})
    model = staging.open(NAME)
    assert model.revision == NEW
    assert contents(model) == {"config.json": b"new"}


def test_publishing_removes_all_that_was_half_fetched_of_the_model(staging: StagingArea) -> None:
    (staging.partial(NAME, OLD) / "model.safetensors").write_bytes(b"half")
    (staging.partial("other", OLD) / "model.safetensors").write_bytes(b"half")
    publish(staging, NEW, {"config.json": b"{}"})
    assert [path.name for path in (staging.root / ".partial").iterdir()] == ["other"]


def test_files_of_an_earlier_selection_are_not_published(staging: StagingArea) -> None:
    left = staging.partial(NAME, OLD) / "onnx" / "model.onnx"
    left.parent.mkdir()
    left.write_bytes(b"left by a download with other patterns")
    publish(staging, OLD, {"config.json": b"{}"})
    assert contents(staging.open(NAME)) == {"config.json": b"{}"}
    assert not (staging.open(NAME).path / "onnx").exists()


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (staging_module, "_prune"),
        (staging_module, "sync"),
        (staging_module, "put_directory"),
        (directories, "_exchange"),
    ],
)
def test_publishing_that_fails_at_any_step_leaves_the_old_model(
    staging: StagingArea, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EIO, step)

    publish(staging, OLD, revision_of(OLD))
    monkeypatch.setattr(module, step, fail)
    with pytest.raises(OSError, match=step):
        publish(staging, NEW, revision_of(NEW))
    monkeypatch.undo()
    assert contents(staging.open(NAME)) == revision_of(OLD)
    publish(staging, NEW, revision_of(NEW))
    assert contents(staging.open(NAME)) == revision_of(NEW)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
def test_a_file_system_that_cannot_exchange_still_replaces(
    staging: StagingArea, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def cannot(*_: object) -> NoReturn:
        raise OSError(code, "no exchange")

    monkeypatch.setattr(directories, "_exchange", cannot)
    publish(staging, OLD, revision_of(OLD))
    publish(staging, NEW, revision_of(NEW))
    assert contents(staging.open(NAME)) == revision_of(NEW)


def test_a_replaced_state_is_kept_without_exchange_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> NoReturn:
        raise OSError(errno.ENOSYS, "no exchange")

    monkeypatch.setattr(directories, "_exchange", cannot)
    settings = StorageSettings(staging_dir=tmp_path / "models", reserve_bytes=0)
    staging = StagingArea(settings, lambda _: False)
    publish(staging, OLD, revision_of(OLD))
    old = staging.open(NAME)
    staging.claim(old, "an import")
    publish(staging, NEW, revision_of(NEW))
    assert contents(staging.open(NAME, old.staged_id)) == revision_of(OLD)
    assert contents(staging.open(NAME)) == revision_of(NEW)


def test_a_reader_sees_the_old_or_the_new_model_while_it_is_replaced(staging: StagingArea) -> None:
    publish(staging, OLD, revision_of(OLD))
    ended = threading.Event()
    seen: list[tuple[str | None, int]] = []

    def read() -> None:
        while not ended.is_set():
            model = staging.open(NAME)
            seen.append((model.revision, sum(file.sha256 is not None for file in model.files)))

    reader = threading.Thread(target=read)
    reader.start()
    for commit in (NEW, OLD) * 10:
        publish(staging, commit, revision_of(commit))
    ended.set()
    reader.join()
    assert set(seen) <= {(OLD, 10), (NEW, 10)}


PUBLISH_FOR_EVER = f"""
import itertools, sys
from pathlib import Path
from tests.unit.test_staging import NEW, OLD, area, publish, revision_of
staging = area(Path(sys.argv[1]))
for commit in itertools.cycle([{OLD!r}, {NEW!r}]):
    publish(staging, commit, revision_of(commit))
    print(commit, flush=True)
"""


def test_kill_9_at_any_moment_leaves_one_whole_model(staging: StagingArea) -> None:
    command = [sys.executable, "-c", PUBLISH_FOR_EVER, str(staging.root)]
    for published in range(1, 5):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(published):  # and then wherever it happens to be
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        model = staging.open(NAME)
        assert model.revision in {OLD, NEW}
        assert contents(model) == revision_of(model.revision)
        assert all(file.sha256 for file in model.files)


def test_a_former_model_left_by_a_kill_is_not_taken_for_a_partial_one(staging: StagingArea) -> None:
    publish(staging, OLD, revision_of(OLD))
    shutil.copytree(staging.open(NAME).path, staging.root / ".partial" / NAME / NEW)
    assert list(staging.partial(NAME, NEW).iterdir()) == []


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    secret = tmp_path / "outside" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    return secret


@pytest.mark.parametrize("what", ["file", "folder", "model", "folder inside", "broken"])
def test_links_that_leave_the_area_are_refused(
    staging: StagingArea, outside: Path, what: str
) -> None:
    publish(staging, OLD, {"x/config.json": b"{}"})
    place = staging.root / NAME
    match what:
        case "file":
            (place / "link").symlink_to(outside)
        case "folder":
            (place / "link").symlink_to(outside.parent)
        case "folder inside":
            (place / "link").symlink_to(place / "x")
        case "broken":
            (place / "link").symlink_to(outside.parent / "missing")
        case _:
            shutil.rmtree(place)
            place.symlink_to(outside.parent)
    with pytest.raises((InvalidInputError, NotFoundError)):
        staging.open(NAME)
    assert staging.list() == ()


def test_a_link_within_the_area_is_a_file(staging: StagingArea) -> None:
    publish(staging, OLD, {"config.json": b"{}"})
    (staging.root / NAME / "link.json").symlink_to("config.json")
    assert contents(staging.open(NAME))["link.json"] == b"{}"


def test_a_pipe_is_refused_rather_than_waited_for(staging: StagingArea) -> None:
    publish(staging, OLD, {"config.json": b"{}"})
    os.mkfifo(staging.root / NAME / "pipe")
    with pytest.raises(InvalidInputError):
        staging.open(NAME)


def test_a_file_that_was_touched_loses_its_digest(staging: StagingArea) -> None:
    publish(staging, OLD, {"a": b"1", "b": b"2"})
    path = staging.root / NAME / "a"
    path.write_bytes(b"X")
    os.utime(path, ns=(0, 0))
    files = {file.path: file.sha256 for file in staging.open(NAME).files}
    assert files["a"] is None
    assert files["b"] is not None


def test_a_model_that_was_put_there_by_hand_is_listed_without_its_bookkeeping(
    staging: StagingArea,
) -> None:
    for path in ("config.json", ".git/HEAD", ".cache/huggingface/x", "sub/.git"):
        (staging.root / "mine" / path).parent.mkdir(parents=True, exist_ok=True)
        (staging.root / "mine" / path).write_bytes(b"{}")
    (model,) = staging.list()
    assert [file.path for file in model.files] == ["config.json", "sub/.git"]
    assert (model.revision, model.repo_id, model.files[0].sha256) == (None, None, None)


def test_files_that_the_older_revision_has_are_linked_not_fetched(staging: StagingArea) -> None:
    publish(staging, OLD, {"weights": b"big", "README": b"old"})
    directory = staging.partial(NAME, NEW)
    digest = hashlib.sha256(b"big").hexdigest()
    wanted = {"moved/weights": digest, "README": hashlib.sha256(b"new").hexdigest()}
    staging.reuse(staging.open(NAME), directory, wanted)
    assert (directory / "moved" / "weights").samefile(staging.root / NAME / "weights")
    assert not (directory / "README").exists()


def test_room_is_asked_for_beside_the_reserve(
    staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    staging.require_room(4000)
    with pytest.raises(InsufficientDiskError, match="4,001"):
        staging.require_room(4001)


def test_a_removed_model_is_gone(staging: StagingArea, token: CancelToken) -> None:
    publish(staging, OLD, {"config.json": b"{}"})
    staging.remove(NAME, token)
    assert staging.list() == ()
    with pytest.raises(NotFoundError):
        staging.remove(NAME, token)


def test_partials_that_nobody_came_back_for_are_deleted(
    staging: StagingArea, token: CancelToken
) -> None:
    names = ("recent", "forgotten", "busy")
    for name in names:
        staging.partial(name, OLD)
        with staging.lock(name, token):
            pass
    for name in names[1:]:
        os.utime(staging.root / ".locks" / name, (0, 0))
    with (staging.root / ".locks" / "busy").open() as busy:
        fcntl.flock(busy, fcntl.LOCK_SH)
        staging.collect_expired()
    assert {path.name for path in (staging.root / ".partial").iterdir()} == {"recent", "busy"}
    assert PARTIAL_KEPT_SECONDS > 86400


def test_the_second_at_a_lock_waits_for_the_first(staging: StagingArea, token: CancelToken) -> None:
    order: list[str] = []
    waiting = threading.Event()

    class Watched(CancelToken):
        def wait(self, timeout_seconds: float) -> bool:
            waiting.set()
            return super().wait(timeout_seconds)

    def second() -> None:
        with staging.lock(NAME, Watched()):
            order.append("second")

    thread = threading.Thread(target=second)
    with staging.lock(NAME, token), staging.lock("another", token):
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_readers_share_a_lock_that_a_writer_does_not_get(
    staging: StagingArea, token: CancelToken
) -> None:
    token.cancel(CancelledError("enough"))
    with (
        staging.lock(NAME, CancelToken(), shared=True),
        staging.lock(NAME, token, shared=True),
        pytest.raises(CancelledError),
        staging.lock(NAME, token),
    ):
        raise AssertionError("locked twice")


HOLD = """
import sys
from pathlib import Path
from shared.cancellation import CancelToken
from tests.unit.test_staging import NAME, area
with area(Path(sys.argv[1])).lock(NAME, CancelToken()):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(staging: StagingArea) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", HOLD, str(staging.root)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_lock_dies_with_its_process(
    staging: StagingArea, token: CancelToken, holder: "subprocess.Popen[bytes]"
) -> None:
    cancelled = CancelToken()
    cancelled.cancel(CancelledError("enough"))
    with pytest.raises(CancelledError), staging.lock(NAME, cancelled):
        raise AssertionError("locked twice")
    holder.kill()
    holder.wait()
    with staging.lock(NAME, token):
        pass


def test_the_front_can_list_without_the_hub_and_torch() -> None:
    forbid = "import sys; sys.modules.update(huggingface_hub=None, torch=None)"
    subprocess.run([sys.executable, "-c", f"{forbid}; import shared.staging"], cwd=ROOT, check=True)


def test_the_manifest_is_not_one_of_the_files(staging: StagingArea) -> None:
    publish(staging, OLD, {"config.json": b"{}", "sub/.lifecycle.json": b"the model's own"})
    model = staging.open(NAME)
    assert (model.path / MANIFEST).is_file()
    assert [file.path for file in model.files] == ["config.json", "sub/.lifecycle.json"]
