"""What holds for any hub: with HF_TEST_ENDPOINT and HF_TEST_MODEL set, it runs against that one.

The model should be small and public, with a large and a small file.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata

from tests.integration.hub_contract.target import (
    Target,
    expected_etag,
    git_sha1,
)


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
