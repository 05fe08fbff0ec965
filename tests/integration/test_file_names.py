"""A file name is accepted and served, or refused before a byte is stored, by the whole chain."""

import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from shared.cancellation import CancelToken
from shared.errors import UnsafeModelError
from shared.hub import Hub, HubFile, HubModel
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.models import LakeFSLocation
from shared.registry import ModelRegistry
from shared.settings import HubSettings, LakeFSSettings, MLflowSettings, StorageSettings
from shared.staging import StagingArea
from tests.integration.conftest import NewRun
from tests.integration.test_register import MODEL
from workers.inference.snapshot_disk import SnapshotDisk
from workers.inference.snapshots import Snapshots
from workers.lifecycle.download import Download
from workers.lifecycle.register import Register
from workers.lifecycle.upload import Upload

REFUSED_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
CHARACTERS = [chr(code) for code in range(0x20000) if chr(code) not in "/\\"]
PRINTABLE = {
    category: [character for character in CHARACTERS if unicodedata.category(character) == category]
    for category in sorted(set(map(unicodedata.category, CHARACTERS)) - REFUSED_CATEGORIES)
}
ALWAYS = [
    *PRINTABLE["Zs"],
    *" %#?&=;,:|*+'\"~-@$",
    "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "/\\"),
    "e\u0301",
    "\u00e9",
    "50%25",
    "\U0001f469\U0001f3fd\u200d\U0001f4bb",
    "x" * 254,
    "\u6a21" * 84,
]
DEEP = "/".join("abcdefghijklmnopqrstuvwxyz1234")
#: What Linux can have on its disk, and other people's tools in lakeFS.
REFUSED_NAMES = [
    *(f"a{chr(code)}b" for code in chain(range(1, 0x20), range(0x7F, 0xA0))),
    *(f"a{character}b" for character in "\\\u00ad\u200b\u200c\u200d\u202e\u2060\ufeff\u2028\u2029"),
    *("a\ue000b", "a\U00100000b", "a\ufffeb", "a\U0001ffffb"),
]
NOT_UTF8 = [b"caf\xe9.txt", b"a\xed\xa0\x80b", b"\xff"]
#: Paths that a disk cannot hold beside the others, or not as files.
REFUSED_PATHS = ["sub/", "a//b", "./a", "a/../b", "y" * 256]


class NoRegistry:
    """A registry that fails the test where a version is made."""

    def create_version(self, *_: object) -> None:
        raise AssertionError("a version was made of a model that cannot be served")


class ListedHub:
    """A hub that lists files and fails the test where one is fetched."""

    def __init__(self, *paths: str) -> None:
        self._files = tuple(HubFile(path, 1, git_sha1="0" * 40) for path in paths)

    def model(self, repo_id: str, _revision: str | None) -> HubModel:
        return HubModel(repo_id, "a" * 40, self._files)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AssertionError(f"{name} of the hub was used")


class Chain:
    """The jobs of one host from the hub to a snapshot, run without a ledger."""

    def __init__(self, root: Path, lakefs: LakeFSSettings, repo: str, new_run: NewRun) -> None:
        self.store = LakeFSStore(lakefs)
        self.staging = StagingArea(StorageSettings(staging_dir=root / "staging", reserve_bytes=0))
        self.snapshots = Snapshots(self.store, SnapshotDisk(root / "snapshots"))
        self._upload = Upload(self.store, self.staging, lakefs)
        self._repo = repo
        self._new_run = new_run

    def download(self, hub: Hub) -> str:
        """Stage a model and return its local name."""
        download = Download(hub, self.staging, HubSettings())
        run = self._new_run(JobKind.DOWNLOAD, {"model_name": "acme/names"})
        return str(download(run.context)["local_model_name"])

    def upload(self, local_name: str) -> str:
        """Commit a staged model and return the commit."""
        request = {"repo_name": self._repo, "local_model_name": local_name}
        return str(self._upload(self._new_run(JobKind.UPLOAD, request).context)["commit_id"])

    def register(self, commit: str, path: str, registry: object) -> LakeFSLocation:
        """Register a model and return where the version says that its files are."""
        request = {
            "registered_name": f"model-of-{self._repo}",
            "task": "text-generation",
            "lakefs_repo": self._repo,
            "commit_id": commit,
            "path": path,
        }
        register = Register(cast("ModelRegistry", registry), self.store)
        result = register(self._new_run(JobKind.REGISTER, request).context)
        return LakeFSLocation.parse(result["tags"]["physical_path"])

    def serve(self, location: LakeFSLocation) -> dict[str, bytes]:
        """Return the files that an engine gets."""
        with self.snapshots.acquire(location, CancelToken()) as snapshot:
            found = (path for path in snapshot.directory.rglob("*") if path.is_file())
            return {
                path.relative_to(snapshot.directory).as_posix(): path.read_bytes() for path in found
            }


@pytest.fixture
def jobs(
    lakefs_server: LakeFSSettings, repo: str, new_run: NewRun, tmp_path: Path
) -> Iterator[Chain]:
    """The chain over an empty repository and an empty disk."""
    jobs = Chain(tmp_path, lakefs_server, repo, new_run)
    yield jobs
    jobs.store.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub")) as process:
        yield process


def write(directory: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)


def named(texts: list[str]) -> dict[str, bytes]:
    """Return a model with each text as the name of a file, and of a directory."""
    files = MODEL | {DEEP: b"deep"}
    for number, text in enumerate(texts):
        files |= {text: str(number).encode(), f"{text}d/{text}f": text.encode()}
    return files


@given(
    st.tuples(
        *(
            st.lists(st.sampled_from(characters), min_size=8, max_size=8)
            for characters in PRINTABLE.values()
        )
    )
)
@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_of_every_printable_category_are_served_byte_for_byte(
    jobs: Chain, hub: HubProcess, mlflow_server: str, tmp_path: Path, sampled: list[list[str]]
) -> None:
    files = named(["".join(characters) for characters in sampled] + ALWAYS)
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    write(tmp_path / "source", files)
    publish(hub.root, "acme/names", tmp_path / "source")
    registry = ModelRegistry(MLflowSettings(tracking_uri=mlflow_server))

    local_name = jobs.download(Hub(HubSettings(endpoint=hub.url)))
    location = jobs.register(jobs.upload(local_name), local_name, registry)
    assert jobs.serve(location) == files


def test_names_that_the_hub_lists_are_refused_before_a_byte_is_fetched(
    jobs: Chain, tmp_path: Path
) -> None:
    for path in (*REFUSED_NAMES, *REFUSED_PATHS, ".lifecycle.json"):
        with pytest.raises(UnsafeModelError) as caught:
            jobs.download(cast("Hub", ListedHub("config.json", path)))
        assert caught.value.specific_code == "unsafe_file_name", path
    assert list(tmp_path.iterdir()) == []


def test_names_that_were_put_on_the_disk_by_hand_are_refused_before_a_byte_is_sent(
    jobs: Chain, repo: str
) -> None:
    for number, name in enumerate(
        (*map(os.fsencode, REFUSED_NAMES), *NOT_UTF8, b".lifecycle.json")
    ):
        write(jobs.staging.root / f"m{number}", MODEL | {os.fsdecode(name): b"1"})
        with pytest.raises(UnsafeModelError) as caught:
            jobs.upload(f"m{number}")
        assert caught.value.specific_code == "unsafe_file_name", name
        assert caught.value.field == "local_model_name"
    assert jobs.store.files(repo, "main", "", missing_ok=True) == []


def test_names_that_others_committed_are_refused_before_a_version_is_made(
    jobs: Chain, repo: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    refused = [*([name] for name in (*REFUSED_NAMES, *REFUSED_PATHS, "")), ["a", "a/b"]]
    for number, paths in enumerate(refused):
        for path in paths:
            jobs.store.put(
                repo,
                "main",
                f"m{number}/{path}",
                source,
                sha256=digest,
                token=CancelToken(),
                on_bytes=lambda _: None,
            )
    commit = jobs.store.commit_changes(repo, "main", "Names that cannot be served")
    for number, paths in enumerate(refused):
        with pytest.raises(UnsafeModelError) as caught:
            jobs.register(commit, f"m{number}", NoRegistry())
        assert caught.value.specific_code == "unsafe_file_name", paths
        with pytest.raises(UnsafeModelError) as caught:
            jobs.serve(LakeFSLocation(repo, commit, f"m{number}"))
        assert caught.value.specific_code == "unsafe_file_name", paths
