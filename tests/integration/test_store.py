"""The client of lakeFS keeps its promises against a lakeFS server over HTTP."""

import hashlib
import random
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DigestMismatchError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from shared.lakefs.body import Body
from shared.lakefs.listing import RepositoryListing
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings
from tests.processes import free_port

MIB = 1 << 20


@pytest.fixture(params=["lakefs_server", "presigning_lakefs_server"])
def any_store(request: pytest.FixtureRequest) -> Iterator[LakeFSStore]:
    """A client of a lakeFS that moves bytes itself, and of one that hands out links."""
    store = LakeFSStore(request.getfixturevalue(request.param))
    store._writer.part_bytes = 5 * MIB  # the least that S3 takes
    yield store
    store.close()


@pytest.fixture
def any_repo(any_store: LakeFSStore) -> str:
    return any_store.ensure_repository(f"test-{uuid.uuid4().hex[:12]}").name


def write_file(path: Path, size_bytes: int) -> str:
    data = random.Random(size_bytes).randbytes(size_bytes)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def put(
    store: LakeFSStore, repo: str, path: str, file: Path, sha256: str, **changes: Any
) -> list[int]:
    counts: list[int] = []
    arguments: dict[str, Any] = {
        "sha256": sha256,
        "token": CancelToken(),
        "on_bytes": counts.append,
    } | changes
    store.put(repo, "main", path, file, **arguments)
    return counts


def fetch(store: LakeFSStore, repo: str, path: str, file: Path) -> tuple[str, int]:
    counts: list[int] = []
    token = CancelToken()
    digest = store.fetch(repo, "main", path, file, token=token, on_bytes=counts.append)
    return digest, sum(counts)


def cut_once(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after_bytes: int
) -> list[None]:
    """Make a stream of httpx break off once; the list is filled when that has happened."""
    whole: Callable[..., Iterator[bytes]] = getattr(owner, name)
    cuts: list[None] = []

    def broken(*args: Any, **options: Any) -> Iterator[bytes]:
        passed = 0
        for chunk in whole(*args, **options):
            if not cuts and passed >= after_bytes:
                cuts.append(None)
                raise httpx.ReadError("connection reset")
            passed += len(chunk)
            yield chunk

    monkeypatch.setattr(owner, name, broken)
    return cuts


@pytest.mark.parametrize("size_bytes", [0, 1, 3 * MIB + 7, 11 * MIB])
def test_a_file_comes_back_as_it_went(
    any_store: LakeFSStore, any_repo: str, tmp_path: Path, size_bytes: int
) -> None:
    sha256 = write_file(tmp_path / "out", size_bytes)
    counts = put(any_store, any_repo, "m/a file.bin", tmp_path / "out", sha256)
    assert sum(counts) == size_bytes
    (stored,) = any_store.files(any_repo, "main", "m")
    assert (stored.path, stored.size_bytes, stored.sha256) == ("a file.bin", size_bytes, sha256)
    assert fetch(any_store, any_repo, "m/a file.bin", tmp_path / "in") == (sha256, size_bytes)
    assert (tmp_path / "in").read_bytes() == (tmp_path / "out").read_bytes()


def test_a_few_bytes_are_read_without_the_rest(
    any_store: LakeFSStore, any_repo: str, tmp_path: Path
) -> None:
    sha256 = write_file(tmp_path / "out", 1000)
    put(any_store, any_repo, "a", tmp_path / "out", sha256)
    data = (tmp_path / "out").read_bytes()
    assert any_store.read(any_repo, "main", "a", 0, 8) == data[:8]
    assert any_store.read(any_repo, "main", "a", 990, 100) == data[990:]
    assert any_store.read(any_repo, "main", "a", 1000, 8) == b""


def test_a_cut_download_goes_on_where_it_was_cut(
    any_store: LakeFSStore, any_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = write_file(tmp_path / "out", 3 * MIB)
    put(any_store, any_repo, "a", tmp_path / "out", sha256)
    cuts = cut_once(monkeypatch, httpx.Response, "iter_raw", MIB)
    assert fetch(any_store, any_repo, "a", tmp_path / "in") == (sha256, 3 * MIB)
    assert cuts


def test_a_cut_upload_is_sent_again_and_counted_once(
    any_store: LakeFSStore, any_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = write_file(tmp_path / "out", 11 * MIB)
    cuts = cut_once(monkeypatch, Body, "chunks", 2 * MIB)
    counts = put(any_store, any_repo, "a", tmp_path / "out", sha256)
    assert cuts
    assert min(counts) < 0
    assert sum(counts) == 11 * MIB
    assert any_store.files(any_repo, "main", "")[0].sha256 == sha256


def test_a_file_that_changed_is_never_stored(
    any_store: LakeFSStore, any_repo: str, tmp_path: Path
) -> None:
    for size_bytes in (0, 100, 6 * MIB):
        write_file(tmp_path / "out", size_bytes)
        with pytest.raises(DigestMismatchError):
            put(any_store, any_repo, "a", tmp_path / "out", "0" * 64)
    assert any_store.files(any_repo, "main", "", missing_ok=True) == []


def test_transfers_stop_within_a_chunk_when_cancelled(
    any_store: LakeFSStore, any_repo: str, tmp_path: Path
) -> None:
    sha256 = write_file(tmp_path / "out", 6 * MIB)
    put(any_store, any_repo, "a", tmp_path / "out", sha256)
    token, counts = CancelToken(), list[int]()

    def cancel(size_bytes: int) -> None:
        counts.append(size_bytes)
        token.cancel(CancelledError("by the client"))

    with pytest.raises(CancelledError):
        put(any_store, any_repo, "b", tmp_path / "out", sha256, token=token, on_bytes=cancel)
    assert sum(counts) <= MIB
    token, counts = CancelToken(), []
    with pytest.raises(CancelledError):
        any_store.fetch(any_repo, "main", "a", tmp_path / "in", token=token, on_bytes=cancel)
    assert sum(counts) <= MIB
    assert [file.path for file in any_store.files(any_repo, "main", "")] == ["a"]


def test_listings_have_all_pages(
    store: LakeFSStore, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = write_file(tmp_path / "out", 1)
    names = {f"m/{number}" for number in range(7)}
    for name in names | {"m2/other"}:
        put(store, repo, name, tmp_path / "out", sha256)
    pages = store._control.pages(store._control.objects.list_objects, repo, "main", amount=3)
    assert {entry.path for entry in pages} == names | {"m2/other"}
    assert {f"m/{file.path}" for file in store.files(repo, "main", "m")} == names


def test_what_is_missing_is_named(store: LakeFSStore, repo: str, tmp_path: Path) -> None:
    token, into = CancelToken(), tmp_path / "in"
    for code, address in {
        "repository_not_found": ("no-such-repo", "main", "m"),
        "commit_not_found": (repo, "f" * 64, "m"),
        "path_not_found": (repo, "main", "no/such"),
    }.items():
        with pytest.raises(NotFoundError) as listed:
            store.files(*address)
        with pytest.raises(NotFoundError) as fetched:
            store.fetch(*address, into, token=token, on_bytes=lambda _: None)
        assert (listed.value.specific_code, fetched.value.specific_code) == (code, code)
        missing = dict(zip(("rep", "com", "pat"), address, strict=True))[code[:3]]
        assert missing in listed.value.detail
    with pytest.raises(NotFoundError) as named:
        store.commit_id(repo, "no-such-branch")
    assert named.value.specific_code == "commit_not_found"


def test_a_repository_that_was_deleted_can_be_made_again(store: LakeFSStore, repo: str) -> None:
    """Its storage namespace stays in use."""
    before = store.ensure_repository(repo)
    store._control.call(store._control.repositories.delete_repository, repo)
    again = store.ensure_repository(repo)
    assert again.name == before.name
    assert again.storage_namespace != before.storage_namespace
    assert store.commit(repo, "main").message == "Repository created"


def test_those_who_make_a_repository_at_once_get_the_same(store: LakeFSStore) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(store.ensure_repository, [name] * 8))
    assert len(found) == 1


def test_a_job_finds_its_commit_by_metadata(store: LakeFSStore, repo: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    sha256 = write_file(tmp_path / "out", 1)
    for job in ("one", "two"):
        put(store, repo, job, tmp_path / "out", sha256)
        assert store.has_uncommitted(repo, "main")
        store.commit_changes(repo, "main", f"by {job}", {"job_id": job})
    assert not store.has_uncommitted(repo, "main")
    found = store.find_commit(repo, "main", "one", now)
    assert found is not None
    assert found.message == "by one"
    assert store.commit(repo, found.id[:16]).id == found.id
    assert store.find_commit(repo, "main", "three", now) is None
    # It is older than what the job may have made, whatever the clocks say.
    assert store.find_commit(repo, "main", "one", now + timedelta(days=1)) is None


def test_a_squash_merge_is_one_commit(store: LakeFSStore, repo: str, tmp_path: Path) -> None:
    sha256 = write_file(tmp_path / "out", 1)
    head = store.commit_id(repo, "main")
    assert store.ensure_branch(repo, "work", source="main") == head
    assert store.ensure_branch(repo, "work", source="main") == head
    for name in ("a", "b"):
        store.put(
            repo,
            "work",
            name,
            tmp_path / "out",
            sha256=sha256,
            token=CancelToken(),
            on_bytes=lambda _: None,
        )
        store.commit_changes(repo, "work", name)
    assert store.has_changes(repo, "work", since="main")
    assert not store.has_changes(repo, "main", since="work")
    merged = store.merge(repo, "work", "main", message="m", metadata={"job_id": "j"}, squash=True)
    commit = store.commit(repo, "main")
    assert (commit.id, commit.parents) == (merged, (head,))
    assert commit.metadata["job_id"] == "j"
    store.delete_branch(repo, "work")
    store.delete_branch(repo, "work")
    assert [file.path for file in store.files(repo, merged, "")] == ["a", "b"]


def test_deleted_files_are_gone(store: LakeFSStore, repo: str, tmp_path: Path) -> None:
    sha256 = write_file(tmp_path / "out", 1)
    put(store, repo, "a", tmp_path / "out", sha256)
    store.delete_files(repo, "main", ["a", "never-there"])
    assert store.files(repo, "main", "", missing_ok=True) == []


def test_repositories_are_listed(
    store: LakeFSStore, repo: str, lakefs_server: LakeFSSettings
) -> None:
    with closing(RepositoryListing(lakefs_server)) as listing:
        assert store.ensure_repository(repo) in listing.repositories()
    assert store.health() > 0


def test_wrong_credentials_are_told_and_not_retried(lakefs_server: LakeFSSettings) -> None:
    nobody = lakefs_server.model_copy(update={"access_key_id": "nobody"})
    with closing(LakeFSStore(nobody)) as store:
        with pytest.raises(RequestError, match="credentials") as error:
            store.ensure_repository("some-repository")
        assert error.value.specific_code == "lakefs_unauthorized"
        with pytest.raises(RequestError) as error:
            store.read("repo", "main", "a", 0, 1)
        assert error.value.specific_code == "lakefs_unauthorized"


def test_a_dead_store_is_unavailable(tmp_path: Path) -> None:
    nowhere = LakeFSSettings(endpoint=f"http://127.0.0.1:{free_port()}")
    with closing(LakeFSStore(nowhere)) as store, pytest.raises(UnavailableError) as error:
        store.health()
    assert error.value.specific_code == "lakefs_unavailable"
