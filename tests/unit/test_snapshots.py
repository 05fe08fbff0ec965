"""Snapshots: complete or not there, verified, shared by processes, within the disk's budget."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DigestMismatchError,
    InsufficientDiskError,
    NotFoundError,
    UnavailableError,
    UnsafeModelError,
)
from shared.models import LakeFSLocation, StoredFile, manifest_digest
from tests.model_stores import DirectoryStore
from workers.inference.snapshot_disk import SnapshotDisk, size_bytes
from workers.inference.snapshots import Snapshots

PATIENCE = 30.0
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(100_000), "sub/extra.txt": b"hi"}


class FaultyStore(DirectoryStore):
    """A store whose next fetches go wrong as the test says."""

    def __init__(self, root: Path, *, records_digests: bool = True) -> None:
        super().__init__(root, records_digests=records_digests)
        #: Called before each fetch with the object's path; its return value replaces the content.
        self.fault: Callable[[str], bytes | None] = lambda _: None

    def fetch(
        self,
        repo: str,
        ref: str,
        path: str,
        destination: Path,
        *,
        token: CancelToken,
        on_bytes: Callable[[int], None],
    ) -> str:
        """Fetch, unless the fault says otherwise."""
        content = self.fault(path)
        digest = super().fetch(repo, ref, path, destination, token=token, on_bytes=on_bytes)
        if content is not None:
            destination.write_bytes(content)
            return "0" * 64
        return digest


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(tmp_path / "store")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def snapshots(store: FaultyStore, root: Path) -> Snapshots:
    return Snapshots(store, SnapshotDisk(root))


def publish(
    store: DirectoryStore, commit: str, path: str = "model", files: dict[str, bytes] = FILES
) -> LakeFSLocation:
    """Put files into the store."""
    location = store.location(commit, path)
    for name, content in files.items():
        file = store.directory(location) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return location


def content(directory: Path) -> dict[str, bytes]:
    """Read all files below a directory."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def leftovers(root: Path) -> list[Path]:
    """Return the files of unfinished and of removed snapshots."""
    return [x for part in (".partial", ".trash") for x in (root / part).rglob("*") if x.is_file()]


def test_a_snapshot_has_the_files_of_the_commit(
    store: FaultyStore, snapshots: Snapshots, root: Path
) -> None:
    reports: list[tuple[int, int | None]] = []
    with snapshots.acquire(
        publish(store, "c0ffee00"),
        CancelToken(),
        lambda done, total, *_: reports.append((done, total)),
    ) as snapshot:
        assert snapshot.directory == root / "models" / "c0ffee00" / "model"
        assert content(snapshot.directory) == FILES
    total = sum(map(len, FILES.values()))
    assert reports[-1] == (total, total)
    assert reports == sorted(reports)
    assert leftovers(root) == []


def test_a_commit_without_the_files_that_were_registered_is_refused(
    store: FaultyStore, snapshots: Snapshots
) -> None:
    location = publish(store, "c0ffee00")
    manifest = manifest_digest(store.files(location.repo, location.commit, location.path))
    registered = replace(location, manifest=manifest)
    publish(store, "c0ffee00", files={"another": b"1"})
    with pytest.raises(DigestMismatchError, match="that were registered"):
        snapshots.acquire(registered, CancelToken())
    (store.directory(location) / "another").unlink()
    with snapshots.acquire(registered, CancelToken()) as snapshot:
        assert content(snapshot.directory) == FILES


def test_the_second_use_fetches_nothing(store: FaultyStore, snapshots: Snapshots) -> None:
    location = publish(store, "c0ffee00")
    snapshots.acquire(location, CancelToken()).close()
    shutil.rmtree(store.root)
    with snapshots.acquire(location, CancelToken()) as snapshot:
        assert content(snapshot.directory) == FILES
    assert len(store.fetched) == len(FILES)


def test_a_commits_root_and_directories_in_it_are_snapshots_of_their_own(
    store: FaultyStore, snapshots: Snapshots
) -> None:
    publish(store, "c0ffee00", "a/b", {"x": b"1"})
    publish(store, "c0ffee00", "a", {"y": b"2"})
    found = {}
    for path in ("a/b", "a", ""):
        with snapshots.acquire(store.location("c0ffee00", path), CancelToken()) as snapshot:
            found[path] = content(snapshot.directory)
    assert found == {
        "a/b": {"x": b"1"},
        "a": {"b/x": b"1", "y": b"2"},
        "": {"a/b/x": b"1", "a/y": b"2"},
    }


def test_a_long_path_has_a_place(store: FaultyStore, snapshots: Snapshots) -> None:
    location = publish(store, "c0ffee00", "/".join(["long" * 20] * 4), {"x": b"1"})
    with snapshots.acquire(location, CancelToken()) as snapshot:
        assert content(snapshot.directory) == {"x": b"1"}


def test_what_is_not_in_the_store_is_not_found(
    store: FaultyStore, snapshots: Snapshots, root: Path
) -> None:
    with pytest.raises(NotFoundError):
        snapshots.acquire(store.location("deadbeef"), CancelToken())
    assert not (root / "models").exists()


def test_a_file_with_wrong_bytes_is_fetched_a_second_time(
    store: FaultyStore, snapshots: Snapshots
) -> None:
    faults = [b"wrong"]
    store.fault = lambda path: faults.pop() if path.endswith("config.json") and faults else None
    with snapshots.acquire(publish(store, "c0ffee00"), CancelToken()) as snapshot:
        assert content(snapshot.directory) == FILES


@pytest.mark.parametrize("records_digests", [True, False])
def test_a_file_with_wrong_bytes_twice_is_refused(
    tmp_path: Path, root: Path, records_digests: bool
) -> None:
    store = FaultyStore(tmp_path / "store", records_digests=records_digests)
    store.fault = lambda path: b"wrong" if path.endswith("config.json") else None
    location = publish(store, "c0ffee00")
    with pytest.raises(DigestMismatchError, match=r"config\.json"):
        Snapshots(store, SnapshotDisk(root)).acquire(location, CancelToken())
    assert not (root / "models" / "c0ffee00" / "model").exists()


def test_an_interrupted_fetch_goes_on_with_the_files_that_are_missing(
    store: FaultyStore, root: Path
) -> None:
    one_by_one = Snapshots(store, SnapshotDisk(root), concurrent_files=1)

    def cut(path: str) -> None:
        if path.endswith("extra.txt"):
            raise UnavailableError("the connection was cut")

    store.fault = cut
    location = publish(store, "c0ffee00")
    with pytest.raises(UnavailableError):
        one_by_one.acquire(location, CancelToken())
    assert not (root / "models").exists()

    store.fault = lambda _: None
    with one_by_one.acquire(location, CancelToken()) as snapshot:
        assert content(snapshot.directory) == FILES
    assert sorted(store.fetched) == sorted(f"model/{name}" for name in FILES)


def test_damaged_leftovers_are_fetched_again(
    store: FaultyStore, snapshots: Snapshots, root: Path
) -> None:
    complete = root / ".partial" / "models" / "c0ffee00" / "model" / "complete"
    complete.mkdir(parents=True)
    (complete / "config.json").write_bytes(b"[]")
    (complete / "stranger.py").write_bytes(b"")
    with snapshots.acquire(publish(store, "c0ffee00"), CancelToken()) as snapshot:
        assert content(snapshot.directory) == FILES


def test_the_first_failure_stops_the_other_files(store: FaultyStore, root: Path) -> None:
    both = threading.Barrier(2)

    def fault(path: str) -> None:
        both.wait(PATIENCE)
        if path.endswith("config.json"):
            raise UnavailableError("the connection was cut")

    store.fault = fault
    files = {"config.json": b"{}", "large.bin": b"x" * 10_000_000}
    with pytest.raises(UnavailableError):
        Snapshots(store, SnapshotDisk(root), concurrent_files=2).acquire(
            publish(store, "c0ffee00", files=files), CancelToken()
        )


def test_a_cancel_stops_the_fetch(store: FaultyStore, snapshots: Snapshots, root: Path) -> None:
    token = CancelToken()

    def cancel(path: str) -> None:
        token.cancel(CancelledError("by the client"))

    store.fault = cancel
    with pytest.raises(CancelledError):
        snapshots.acquire(publish(store, "c0ffee00"), token)
    assert not (root / "models").exists()


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../evil", "a//b", "./a", "a\\..\\b", "a\nb", "", "a/"]
)
def test_file_names_that_lead_elsewhere_are_refused(
    store: FaultyStore,
    snapshots: Snapshots,
    root: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = publish(store, "c0ffee00")
    monkeypatch.setattr(store, "files", lambda *_: [StoredFile(name, 1, None, "")])
    with pytest.raises(UnsafeModelError) as caught:
        snapshots.acquire(location, CancelToken())
    assert caught.value.specific_code == "unsafe_file_name"
    assert store.fetched == []


def test_files_that_are_also_directories_are_refused(
    store: FaultyStore, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = publish(store, "c0ffee00")
    stored = [StoredFile("a", 1, None, ""), StoredFile("a/b", 1, None, "")]
    monkeypatch.setattr(store, "files", lambda *_: stored)
    with pytest.raises(UnsafeModelError):
        snapshots.acquire(location, CancelToken())


@pytest.mark.parametrize(
    "location",
    [
        LakeFSLocation("..", "c0ffee00", "model"),
        LakeFSLocation("models", "..", "model"),
        LakeFSLocation("models", "a/b", "model"),
        LakeFSLocation("", "c0ffee00", "model"),
        LakeFSLocation(".locks", "c0ffee00", "model"),
    ],
)
def test_locations_that_lead_elsewhere_are_refused(
    snapshots: Snapshots, location: LakeFSLocation
) -> None:
    with pytest.raises(UnsafeModelError):
        snapshots.acquire(location, CancelToken())


@pytest.mark.parametrize("path", ["..", "../..", ".hidden", "a/../b"])
def test_paths_stay_below_their_commit(root: Path, path: str) -> None:
    place = SnapshotDisk(root).place(LakeFSLocation("models", "c0ffee00", path))
    assert place.directory.resolve().parent == root.resolve() / "models" / "c0ffee00"


def test_a_full_disk_is_noticed_before_the_fetch(store: FaultyStore, root: Path) -> None:
    free = shutil.disk_usage(store.root.parent).free
    disk = SnapshotDisk(root, reserve_bytes=2 * free)
    with pytest.raises(InsufficientDiskError, match="stay free"):
        Snapshots(store, disk).acquire(publish(store, "c0ffee00"), CancelToken())
    assert store.fetched == []


def test_a_disk_that_fills_up_during_the_fetch_is_told_apart(
    store: FaultyStore, snapshots: Snapshots, root: Path
) -> None:
    def fill(path: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store.fault = fill
    with pytest.raises(InsufficientDiskError, match="filled up"):
        snapshots.acquire(publish(store, "c0ffee00"), CancelToken())
    assert leftovers(root) == []


def test_the_least_recently_used_snapshot_makes_room(store: FaultyStore, root: Path) -> None:
    snapshots = Snapshots(store, SnapshotDisk(root, max_bytes=250_000))
    first, second, third = (publish(store, f"c0ffee0{n}", files=FILES) for n in range(3))
    for location in (first, second, first):
        snapshots.acquire(location, CancelToken()).close()
    snapshots.acquire(third, CancelToken()).close()
    there = sorted(path.name for path in (root / "models").iterdir() if list(path.iterdir()))
    assert there == [first.commit, third.commit]
    assert size_bytes(root) <= 250_000
    assert leftovers(root) == []


def test_a_snapshot_in_use_is_not_removed(store: FaultyStore, root: Path) -> None:
    snapshots = Snapshots(store, SnapshotDisk(root, max_bytes=150_000))
    with snapshots.acquire(publish(store, "c0ffee00"), CancelToken()) as used:
        with pytest.raises(InsufficientDiskError, match="in use"):
            snapshots.acquire(publish(store, "c0ffee01"), CancelToken())
        assert content(used.directory) == FILES
    snapshots.acquire(publish(store, "c0ffee01"), CancelToken()).close()
    assert not used.directory.exists()


def test_leftovers_of_others_make_room(store: FaultyStore, root: Path) -> None:
    one_by_one = Snapshots(store, SnapshotDisk(root, max_bytes=150_000), concurrent_files=1)

    def cut(path: str) -> None:
        if path.endswith("extra.txt"):
            raise UnavailableError("the connection was cut")

    store.fault = cut
    with pytest.raises(UnavailableError):
        one_by_one.acquire(publish(store, "c0ffee00"), CancelToken())
    assert leftovers(root)
    store.fault = lambda _: None
    one_by_one.acquire(publish(store, "c0ffee01"), CancelToken()).close()
    assert leftovers(root) == []


def test_threads_that_want_the_same_snapshot_fetch_it_once(
    store: FaultyStore, snapshots: Snapshots
) -> None:
    location = publish(store, "c0ffee00")
    together = threading.Barrier(4)
    found: list[dict[str, bytes]] = []

    def ask() -> None:
        together.wait(PATIENCE)
        with snapshots.acquire(location, CancelToken()) as snapshot:
            found.append(content(snapshot.directory))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [FILES] * 4
    assert len(store.fetched) == len(FILES)


#: Begins a fetch, says so when two files are there, and hangs in the third until it is killed.
_FETCHER = """
import sys, threading
from pathlib import Path
from shared.cancellation import CancelToken
from tests.model_stores import DirectoryStore
from workers.inference.snapshot_disk import SnapshotDisk
from workers.inference.snapshots import Snapshots

class Hanging(DirectoryStore):
    def fetch(self, repo, ref, path, destination, **more):
        if path.endswith("extra.txt"):
            print("hanging", flush=True)
            threading.Event().wait()
        return super().fetch(repo, ref, path, destination, **more)

store, root = Hanging(Path(sys.argv[1])), Path(sys.argv[2])
Snapshots(store, SnapshotDisk(root), concurrent_files=1).acquire(
    store.location("c0ffee00"), CancelToken()
)
"""


def test_another_process_waits_for_a_fetch_and_takes_over_when_it_is_killed(
    store: FaultyStore, snapshots: Snapshots, root: Path
) -> None:
    location = publish(store, "c0ffee00")
    with subprocess.Popen(
        [sys.executable, "-c", _FETCHER, str(store.root), str(root)], stdout=subprocess.PIPE
    ) as fetcher:
        assert fetcher.stdout is not None
        assert fetcher.stdout.readline() == b"hanging\n"
        found: list[dict[str, bytes]] = []

        def ask() -> None:
            with snapshots.acquire(location, _LookedAt(waiting)) as snapshot:
                found.append(content(snapshot.directory))

        waiting = threading.Event()
        other = threading.Thread(target=ask)
        other.start()
        assert waiting.wait(PATIENCE)
        assert found == []
        fetcher.kill()
        other.join(PATIENCE)
    assert found == [FILES]
    assert store.fetched == ["model/sub/extra.txt"]


class _LookedAt(CancelToken):
    """Tells when somebody who waits looks at it."""

    def __init__(self, looked: threading.Event) -> None:
        super().__init__()
        self._looked = looked

    def check(self) -> None:
        self._looked.set()
        super().check()
