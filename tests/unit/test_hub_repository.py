"""Publishing directories and reading revisions, without a server."""

import hashlib
from pathlib import Path

import pytest

from embedded.hub.catalog import publish_found
from embedded.hub.errors import (
    EntryNotFoundError,
    InvalidNameError,
    PublishError,
    RepoNotFoundError,
    RevisionNotFoundError,
)
from embedded.hub.names import check_model_id, check_path, check_revision
from embedded.hub.records import Commit
from embedded.hub.repository import ModelStore, publish


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "a").mkdir(parents=True)
    (directory / "README.md").write_bytes(b"hello\n")
    (directory / "a" / "model.safetensors").write_bytes(b"weights")
    return directory


def head(root: Path, model_id: str, revision: str = "main") -> Commit:
    store = ModelStore(root)
    return store.commit(store.repo(model_id), revision)


def test_the_same_content_gives_the_same_commit(root: Path, model: Path) -> None:
    first = publish(root, "org/name", model)
    assert publish(root, "org/name", model) == first
    assert publish(root, "org/other", model) != first
    (model / "README.md").write_bytes(b"changed")
    assert publish(root, "org/name", model) != first
    (model / "README.md").write_bytes(b"hello\n")
    assert publish(root, "org/name", model) == first
    assert head(root, "org/name").sha == first


def test_digests_are_those_of_git_and_of_lfs(root: Path, model: Path) -> None:
    publish(root, "name", model)
    readme = head(root, "name").file("README.md")
    assert readme.etag == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    weights = head(root, "name").file("a/model.safetensors")
    assert weights.etag == hashlib.sha256(b"weights").hexdigest()
    assert weights.pointer_size == 126
    assert ModelStore(root).blob(weights).read_bytes() == b"weights"


def test_folders_carry_gits_tree_ids(root: Path, tmp_path: Path) -> None:
    (tmp_path / "m" / "a").mkdir(parents=True)
    (tmp_path / "m" / "a" / "README.md").write_bytes(b"hello\n")
    publish(root, "name", tmp_path / "m")
    # What git write-tree says of a folder with that one file.
    tree_ids = [folder.tree_id for folder in head(root, "name").folders]
    assert tree_ids == ["853694aae8816094a0d875fee7ea26278dbf5d0f"]


def test_a_published_commit_does_not_change_with_its_directory(root: Path, model: Path) -> None:
    sha = publish(root, "name", model)
    (model / "a" / "model.safetensors").write_bytes(b"overwritten in place")
    entry = head(root, "name", sha).file("a/model.safetensors")
    assert ModelStore(root).blob(entry).read_bytes() == b"weights"


def test_branches_and_tags_point_at_their_commits(root: Path, model: Path) -> None:
    first = publish(root, "name", model, "v1", tag=True)
    assert head(root, "name").sha == first  # the first commit is main's too
    (model / "README.md").write_bytes(b"changed")
    second = publish(root, "name", model, "dev")
    shas = [head(root, "name", name).sha for name in ("v1", "refs/tags/v1", "dev", "main", second)]
    assert shas == [first, first, second, first, second]
    with pytest.raises(PublishError):
        publish(root, "name", model, "v1")
    with pytest.raises(PublishError):
        publish(root, "name", model, "0" * 40)


def test_what_is_missing_is_said(root: Path, model: Path) -> None:
    publish(root, "name", model)
    with pytest.raises(RepoNotFoundError):
        ModelStore(root).repo("other")
    with pytest.raises(RevisionNotFoundError):
        head(root, "name", "other")
    with pytest.raises(EntryNotFoundError):
        head(root, "name").file("other")


def test_links_to_files_are_followed_and_bookkeeping_is_left_out(
    root: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(b"content")
    (model / "linked.txt").symlink_to(tmp_path / "blob")
    for name in (".git", ".cache"):
        (model / name).mkdir()
        (model / name / "x").write_bytes(b"x")
    publish(root, "name", model)
    paths = [file.path for file in head(root, "name").files]
    assert paths == ["README.md", "a/model.safetensors", "linked.txt"]


def test_a_link_to_a_folder_or_an_empty_directory_is_refused(
    root: Path, model: Path, tmp_path: Path
) -> None:
    (model / "linked").symlink_to(tmp_path)
    with pytest.raises(PublishError, match="link to a folder"):
        publish(root, "name", model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PublishError, match="no files"):
        publish(root, "name", tmp_path / "empty")


def test_directories_under_the_root_are_published_once(tmp_path: Path, model: Path) -> None:
    root = tmp_path / "hub"
    (root / "org").mkdir(parents=True)
    model.rename(root / "org" / "name")
    store = ModelStore(root)
    assert publish_found(store) == ["org/name"]
    assert publish_found(store) == []
    (root / "org" / "name" / "new.txt").write_text("new")
    assert publish_found(store) == ["org/name"]
    assert store.model_ids() == ["org/name"]


@pytest.mark.parametrize("name", ["gpt2", "org/name", "a-b.c_d/Qwen2.5-0.5B", "_x"])
def test_model_ids_of_the_hub_are_legal(name: str) -> None:
    assert check_model_id(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/b/c", "..", "a/..", "../a", "/a", "a\0", "a b", "a--b", "-a", "a.", "a/resolve"],
)
def test_other_model_ids_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError):
        check_model_id(name)


@pytest.mark.parametrize("path", ["", "/a", "a/../b", "..", ".", "a//b", "a/", "a\0", "a\\b", "\n"])
def test_paths_that_might_lead_out_are_refused(path: str) -> None:
    with pytest.raises(InvalidNameError):
        check_path(path)


@pytest.mark.parametrize("revision", ["", "..", "a/../b", "/a", "a/", "a b", "-x", "a\0"])
def test_revisions_that_git_would_not_take_are_refused(revision: str) -> None:
    with pytest.raises(InvalidNameError):
        check_revision(revision)
