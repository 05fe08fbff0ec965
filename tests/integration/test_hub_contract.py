"""The hub's protocol as the real client speaks it.

The first part holds for any hub: with HF_TEST_ENDPOINT and HF_TEST_MODEL (small, public, with a
large and a small file) set, it runs against that one. The second part is about what only the
embedded hub does: publishing, access by its token, and faults.
"""

import hashlib
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata
from huggingface_hub.hf_api import RepoFile, RepoFolder

from embedded.hub.faults import Fault, FaultKind
from embedded.hub.process import HubProcess
from embedded.hub.repository import ModelStore, publish

MODEL = "acme/tiny"
WEIGHTS = "model.safetensors"
WEIGHTS_BYTES = 3_000_000
TOKEN = "hf_made_up_for_this_test"


@dataclass(frozen=True)
class Target:
    """A hub under test and a public model on it."""

    endpoint: str
    model_id: str

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, token=False)

    def files(self) -> list[RepoFile]:
        listed = self.api.list_repo_tree(self.model_id, recursive=True)
        return [entry for entry in listed if isinstance(entry, RepoFile)]

    def file(self, *, lfs: bool) -> RepoFile:
        """The smallest file of a sort that a range can be cut out of."""
        fitting = [
            file for file in self.files() if (file.lfs is not None) is lfs and file.size >= 10
        ]
        return min(fitting, key=lambda file: file.size)

    def url(self, path: str, revision: str = "main") -> str:
        return hf_hub_url(self.model_id, path, revision=revision, endpoint=self.endpoint)


def write_model(directory: Path, seed: int = 0) -> Path:
    (directory / "1_Pooling" / "extra").mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "llama", "architectures": ["Llama"]}')
    (directory / WEIGHTS).write_bytes(Random(seed).randbytes(WEIGHTS_BYTES))
    (directory / "1_Pooling" / "config.json").write_text("{}")
    (directory / "1_Pooling" / "extra" / "a name with spaces + ü.txt").write_text("text")
    (directory / "vocab.bin").write_bytes(b"\x00\x01" * 50)
    return directory


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[HubProcess]:
    root = tmp_path_factory.mktemp("hub")
    publish(root, MODEL, model_dir)
    for model_id in ("acme/secret", "acme/gated"):
        publish(root, model_id, model_dir)
    ModelStore(root).set_access("acme/secret", private=True)
    ModelStore(root).set_access("acme/gated", gated=True)
    # The CDN under another name, so that the client takes it for another host.
    with HubProcess(root, "--cdn-host", "localhost", token=TOKEN) as process:
        yield process


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest) -> Target:
    if endpoint := os.environ.get("HF_TEST_ENDPOINT"):
        return Target(endpoint, os.environ["HF_TEST_MODEL"])
    return Target(request.getfixturevalue("hub").url, MODEL)


@pytest.fixture
def sound_hub(hub: HubProcess) -> Iterator[HubProcess]:
    hub.reset_stats()
    yield hub
    hub.set_faults()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # noqa: S324


def expected_etag(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs else file.blob_id


# --- any hub -------------------------------------------------------------------------------------


def test_a_snapshot_holds_every_file_with_the_listed_digest(target: Target, tmp_path: Path) -> None:
    folder = Path(
        snapshot_download(
            target.model_id, endpoint=target.endpoint, cache_dir=tmp_path, token=False
        )
    )
    assert folder.name == target.api.model_info(target.model_id).sha
    files = target.files()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {file.path for file in files}
    for file in files:
        content = (folder / file.path).read_bytes()
        assert len(content) == file.size
        if file.lfs:
            assert file.lfs.sha256 == hashlib.sha256(content).hexdigest()
        else:
            assert file.blob_id == git_sha1(content)


def test_the_command_line_downloads(target: Target, tmp_path: Path) -> None:
    small = target.file(lfs=False).path
    command = [str(Path(sys.executable).with_name("hf")), "download", target.model_id, small]
    environment = {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": target.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
    subprocess.run(
        [*command, "--local-dir", str(tmp_path / "out")], env=environment, check=True, timeout=90
    )
    assert git_sha1((tmp_path / "out" / small).read_bytes()) == target.file(lfs=False).blob_id


def test_model_info_tells_sizes_and_digests(target: Target) -> None:
    info = target.api.model_info(target.model_id, files_metadata=True, securityStatus=True)
    assert info.id == target.model_id
    assert info.created_at is not None
    assert info.siblings is not None
    listed = {file.path: file for file in target.files()}
    assert {sibling.rfilename for sibling in info.siblings} == set(listed)
    for sibling in info.siblings:
        file = listed[sibling.rfilename]
        assert (sibling.size, sibling.blob_id, sibling.lfs) == (file.size, file.blob_id, file.lfs)


def test_model_info_expands_only_what_is_asked(target: Target) -> None:
    info = target.api.model_info(target.model_id, expand=["sha", "siblings"])
    assert info.sha == target.api.model_info(target.model_id).sha
    assert info.siblings
    assert info.last_modified is None


def test_a_commit_can_be_asked_for_by_its_sha(target: Target) -> None:
    sha = target.api.model_info(target.model_id).sha
    assert target.api.model_info(target.model_id, revision=sha).sha == sha
    branches = target.api.list_repo_refs(target.model_id).branches
    assert [ref.target_commit for ref in branches if ref.ref == "refs/heads/main"] == [sha]


def test_a_tree_can_be_read_in_pages(target: Target) -> None:
    url: str | None = f"{target.endpoint}/api/models/{target.model_id}/tree/main?recursive=true"
    whole = httpx.get(url or "").json()
    paged = []
    url = f"{url}&limit=1"
    while url:
        page = httpx.get(url)
        paged += page.json()
        url = page.links.get("next", {}).get("url")
    assert paged == whole


def test_paths_info_leaves_out_what_does_not_exist(target: Target) -> None:
    file = target.file(lfs=True)
    found = target.api.get_paths_info(target.model_id, [file.path, "no/such/file"])
    assert found == [file]


@pytest.mark.parametrize("lfs", [False, True])
def test_file_metadata_names_commit_etag_and_size(target: Target, lfs: bool) -> None:
    file = target.file(lfs=lfs)
    metadata = get_hf_file_metadata(target.url(file.path), token=False, endpoint=target.endpoint)
    assert metadata.commit_hash == target.api.model_info(target.model_id).sha
    assert (metadata.etag, metadata.size) == (expected_etag(file), file.size)


def test_a_large_file_is_sent_from_elsewhere(target: Target) -> None:
    file = target.file(lfs=True)
    assert file.lfs is not None
    answer = httpx.head(target.url(file.path))
    assert answer.status_code == 302
    assert answer.headers["X-Linked-Etag"] == f'"{file.lfs.sha256}"'
    assert answer.headers["X-Linked-Size"] == str(file.size)
    assert answer.headers["X-Repo-Commit"] == target.api.model_info(target.model_id).sha
    assert not answer.headers["Location"].startswith(target.url(file.path))


@pytest.mark.parametrize("lfs", [False, True])
@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("bytes=3-", 3, None), ("bytes=1-4", 1, 5), ("bytes=-5", -5, None)]
)
def test_a_part_of_a_file_can_be_asked_for(
    target: Target, lfs: bool, asked: str, start: int, stop: int | None
) -> None:
    file = target.file(lfs=lfs)
    headers = {"Accept-Encoding": "identity"}
    whole = httpx.get(target.url(file.path), follow_redirects=True, headers=headers)
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = httpx.get(
        target.url(file.path), follow_redirects=True, headers=headers | {"Range": asked}
    )
    expected = range(file.size)[start:stop]
    assert part.status_code == 206
    assert part.content == whole.content[start:stop]
    assert part.headers["Content-Range"] == (
        f"bytes {expected.start}-{expected.stop - 1}/{file.size}"
    )


def test_a_range_past_the_end_is_refused(target: Target) -> None:
    file = target.file(lfs=True)
    asked = {"Range": f"bytes={file.size}-"}
    answer = httpx.get(target.url(file.path), follow_redirects=True, headers=asked)
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{file.size}"


def test_what_does_not_exist_is_refused_in_the_clients_words(
    target: Target, tmp_path: Path
) -> None:
    missing = f"{target.model_id}-that-does-not-exist"
    assert target.api.repo_exists(target.model_id)
    assert not target.api.repo_exists(missing)
    target.api.auth_check(target.model_id)
    with pytest.raises(RepositoryNotFoundError):
        target.api.auth_check(missing)
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download(missing, endpoint=target.endpoint, cache_dir=tmp_path, token=False)
    with pytest.raises(RevisionNotFoundError):
        target.api.model_info(target.model_id, revision="no-such-branch")
    with pytest.raises(RevisionNotFoundError):
        target.api.model_info(target.model_id, revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(
            target.model_id,
            "no/such/file",
            endpoint=target.endpoint,
            cache_dir=tmp_path,
            token=False,
        )


# --- the embedded hub: revisions and listings ----------------------------------------------------


def test_old_revisions_branches_and_tags_stay_readable(hub: HubProcess, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token=False)
    first = publish(hub.root, "moving", write_model(tmp_path / "a", seed=1))
    publish(hub.root, "moving", tmp_path / "a", "v1", tag=True)
    second = publish(hub.root, "moving", write_model(tmp_path / "b", seed=2))
    other = publish(hub.root, "moving", write_model(tmp_path / "c", seed=3), "feature/x")
    assert api.model_info("moving").sha == second
    assert api.model_info("moving", revision="v1").sha == first
    assert api.model_info("moving", revision="feature/x").sha == other
    assert {ref.name for ref in api.list_repo_refs("moving").branches} == {"main", "feature/x"}
    for revision, folder in ((first, "a"), ("v1", "a"), ("main", "b"), ("feature/x", "c")):
        path = hf_hub_download(
            "moving",
            WEIGHTS,
            revision=revision,
            endpoint=hub.url,
            cache_dir=tmp_path / "cache",
            token=False,
        )
        assert Path(path).read_bytes() == (tmp_path / folder / WEIGHTS).read_bytes()


def test_a_folder_lists_its_own_entries(hub: HubProcess) -> None:
    api = HfApi(endpoint=hub.url, token=False)
    entries = list(api.list_repo_tree(MODEL, "1_Pooling", expand=True))
    assert [(type(entry), entry.path) for entry in entries] == [
        (RepoFile, "1_Pooling/config.json"),
        (RepoFolder, "1_Pooling/extra"),
    ]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(MODEL, "no-such-folder"))


def test_directories_under_the_root_are_served_through_small_pages(tmp_path: Path) -> None:
    write_model(tmp_path / "acme" / "found")
    write_model(tmp_path / "alone")
    with HubProcess(tmp_path, "--tree-page-size", "2") as process:
        api = HfApi(endpoint=process.url, token=False)
        assert [model.id for model in api.list_models()] == ["acme/found", "alone"]
        assert len(list(api.list_repo_tree("acme/found", recursive=True))) == 7
        # One host, so that the client follows the redirect to the CDN by itself.
        path = hf_hub_download(
            "alone", WEIGHTS, endpoint=process.url, cache_dir=tmp_path / ".cache", token=False
        )
        assert Path(path).read_bytes() == (tmp_path / "alone" / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/acme/tiny/resolve/main/../../../../etc/passwd",
        "/acme/tiny/resolve/main/%2e%2e/%2e%2e/etc/passwd",
        "/acme/tiny/resolve/main/..%2f..%2fetc%2fpasswd",
        "/acme/tiny/resolve/main/%252e%252e/etc/passwd",
        "/acme/tiny/resolve/main//etc/passwd",
        "/acme/tiny/resolve/main/config.json%00",
        "/acme/tiny/resolve/..%2f..%2frepo.json/config.json",
        "/acme/..%2f..%2ftiny/resolve/main/config.json",
        "/api/models/..%2f.hub",
        "/api/models/acme/tiny/tree/main/..",
        "/api/models/acme/tiny/revision/%ff",
        "/cdn/acme/tiny/blob/main/../repo.json",
    ],
)
def test_path_tricks_lead_nowhere(hub: HubProcess, path: str) -> None:
    address = urlsplit(hub.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    try:
        connection.request("GET", path)
        assert connection.getresponse().status in {400, 401, 403, 404}
    finally:
        connection.close()


# --- the embedded hub: access --------------------------------------------------------------------


def test_a_private_model_does_not_exist_without_the_token(hub: HubProcess, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError) as refused:
        HfApi(endpoint=hub.url, token=False).model_info("acme/secret")
    assert refused.value.response.status_code == 401
    path = hf_hub_download(
        "acme/secret", WEIGHTS, endpoint=hub.url, cache_dir=tmp_path, token=TOKEN
    )
    assert Path(path).stat().st_size == WEIGHTS_BYTES
    member = HfApi(endpoint=hub.url, token=TOKEN)
    with pytest.raises(RepositoryNotFoundError) as missing:
        member.model_info("acme/nothing")
    assert missing.value.response.status_code == 404


def test_a_gated_model_is_seen_but_not_fetched_without_the_token(hub: HubProcess) -> None:
    anonymous = HfApi(endpoint=hub.url, token=False)
    assert anonymous.model_info("acme/gated").gated == "auto"
    with pytest.raises(GatedRepoError):
        anonymous.auth_check("acme/gated")
    with pytest.raises(GatedRepoError):
        get_hf_file_metadata(hub.url + "/acme/gated/resolve/main/config.json", token=False)
    HfApi(endpoint=hub.url, token=TOKEN).auth_check("acme/gated")


def test_a_wrong_token_is_refused_even_for_a_public_model(hub: HubProcess) -> None:
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="hf_wrong").model_info(MODEL)


def test_a_link_to_the_cdn_cannot_be_made_up(hub: HubProcess) -> None:
    resolve = f"{hub.url}/acme/secret/resolve/main/{WEIGHTS}"
    answer = httpx.head(resolve, headers={"Authorization": f"Bearer {TOKEN}"})
    link = httpx.URL(answer.headers["Location"])
    assert httpx.head(link).status_code == 200
    assert httpx.head(link.copy_with(query=None)).status_code == 403
    assert httpx.head(link.copy_set_param("Expires", "99999999999")).status_code == 403


# --- the embedded hub: faults --------------------------------------------------------------------


def read(answer: httpx.Response, received: bytearray) -> None:
    for chunk in answer.iter_raw():
        received += chunk


def test_a_cut_transfer_can_be_resumed_without_a_byte_sent_twice(
    sound_hub: HubProcess, model_dir: Path
) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.CUT, path="/cdn/*", after_bytes=1_000_001, times=1))
    url = f"{sound_hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    received = bytearray()
    with httpx.stream("GET", url, follow_redirects=True) as answer:
        assert answer.headers["Content-Length"] == str(WEIGHTS_BYTES)
        with pytest.raises(httpx.RemoteProtocolError):
            read(answer, received)
    assert len(received) == 1_000_001
    received += fetch(sound_hub, Range=f"bytes={len(received)}-").content
    assert received == (model_dir / WEIGHTS).read_bytes()
    assert sound_hub.stats()["files"][f"{MODEL}/{WEIGHTS}"] == {
        "transfers": 2,
        "bytes_sent": WEIGHTS_BYTES,
        "ranges": [None, "bytes=1000001-"],
    }


def test_the_real_client_resumes_where_its_last_chunk_ended(
    sound_hub: HubProcess, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    content = bytes(12_000_000)
    (tmp_path / "model" / WEIGHTS).write_bytes(content)
    publish(sound_hub.root, "acme/large", tmp_path / "model")
    sound_hub.set_faults(Fault(kind=FaultKind.CUT, path="/cdn/*", after_bytes=11_000_000, times=1))
    path = hf_hub_download(
        "acme/large", WEIGHTS, endpoint=sound_hub.url, cache_dir=tmp_path / "cache", token=False
    )
    assert Path(path).read_bytes() == content
    ranges = sound_hub.stats()["files"][f"acme/large/{WEIGHTS}"]["ranges"]
    assert ranges == [None, f"bytes={DOWNLOAD_CHUNK_SIZE}-"]


def test_a_status_is_answered_as_often_as_asked(sound_hub: HubProcess) -> None:
    fault = Fault(
        kind=FaultKind.STATUS, path="*/resolve/*", status=429, retry_after_seconds=7, times=2
    )
    sound_hub.set_faults(fault)
    url = f"{sound_hub.url}/{MODEL}/resolve/main/config.json"
    answers = [httpx.head(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert httpx.get(f"{sound_hub.url}/api/models/{MODEL}").status_code == 200


def fetch(hub: HubProcess, **headers: str) -> httpx.Response:
    url = f"{hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    return httpx.get(url, follow_redirects=True, headers=headers)


def test_a_corrupted_body_keeps_its_size(sound_hub: HubProcess, model_dir: Path) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.CORRUPT, path="*.safetensors", times=1))
    content = (model_dir / WEIGHTS).read_bytes()
    spoilt = fetch(sound_hub).content
    assert len(spoilt) == WEIGHTS_BYTES
    assert spoilt != content
    assert fetch(sound_hub).content == content


@pytest.mark.parametrize("extra_bytes", [10, -10])
def test_a_resized_body_says_its_wrong_size(
    sound_hub: HubProcess, tmp_path: Path, extra_bytes: int
) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.RESIZE, extra_bytes=extra_bytes))
    assert len(fetch(sound_hub).content) == WEIGHTS_BYTES + extra_bytes
    with pytest.raises(OSError, match="Consistency check failed"):
        hf_hub_download(MODEL, WEIGHTS, endpoint=sound_hub.url, cache_dir=tmp_path, token=False)


def test_a_range_can_be_ignored(sound_hub: HubProcess) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.IGNORE_RANGE, times=1))
    assert [fetch(sound_hub, Range="bytes=5-9").status_code for _ in range(2)] == [200, 206]


@pytest.mark.parametrize("after_bytes", [None, 0, 1000])
def test_a_hanging_hub_sends_nothing_more(sound_hub: HubProcess, after_bytes: int | None) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.HANG, path="/cdn/*", after_bytes=after_bytes))
    url = f"{sound_hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    received = bytearray()
    with pytest.raises(httpx.ReadTimeout):
        stream_into(received, url)
    assert len(received) == (after_bytes or 0)


def stream_into(received: bytearray, url: str) -> None:
    with httpx.stream("GET", url, follow_redirects=True, timeout=0.3) as answer:
        read(answer, received)


def test_a_throttled_transfer_ends_with_the_client(sound_hub: HubProcess) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.THROTTLE, bytes_per_second=200_000))
    url = f"{sound_hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    with httpx.stream("GET", url, follow_redirects=True) as answer:
        received = len(next(answer.iter_raw()))
    counted = sound_hub.stats()["files"][f"{MODEL}/{WEIGHTS}"]
    assert 0 < received < WEIGHTS_BYTES
    assert counted["bytes_sent"] < WEIGHTS_BYTES


def test_a_fault_that_makes_no_sense_is_refused(sound_hub: HubProcess) -> None:
    answer = httpx.put(f"{sound_hub.url}/_faults", json={"faults": [{"kind": "cut"}]})
    assert answer.status_code == 422


def test_sigterm_ends_the_process_in_good_order_even_amid_a_transfer(
    tmp_path: Path, model_dir: Path
) -> None:
    publish(tmp_path, MODEL, model_dir)
    with HubProcess(tmp_path) as process:
        process.set_faults(Fault(kind=FaultKind.THROTTLE, bytes_per_second=1000))
        url = f"{process.url}/{MODEL}/resolve/main/{WEIGHTS}"
        with httpx.stream("GET", url, follow_redirects=True) as answer:
            assert next(answer.iter_raw())
            assert process.stop() == 0
