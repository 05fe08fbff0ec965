"""The folders of a commit: git's ids for them, and listings in the hub's words."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from embedded.hub.blobs import git_digest
from embedded.hub.errors import EntryNotFoundError
from embedded.hub.records import Commit, FileEntry, FolderEntry


def build_folders(files: Iterable[FileEntry]) -> tuple[str, tuple[FolderEntry, ...]]:
    """Return git's tree id of the root, and the folders below it."""
    children: dict[str, dict[str, tuple[bytes, str]]] = defaultdict(dict)
    folders: set[str] = {""}
    for entry in files:
        parent, _, name = entry.path.rpartition("/")
        children[parent][name] = (b"100644", entry.blob_id)
        while parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    ids: dict[str, str] = {}
    for folder in sorted(folders, key=lambda path: -len(path)):  # children before parents
        ids[folder] = _tree_id(children[folder])
        if folder:
            parent, _, name = folder.rpartition("/")
            children[parent][name] = (b"40000", ids[folder])
    below = sorted(folders - {""})
    return ids[""], tuple(FolderEntry(path=path, tree_id=ids[path]) for path in below)


def _tree_id(children: dict[str, tuple[bytes, str]]) -> str:
    # Git sorts a folder as if its name ended in a slash.
    ordered = sorted(
        children.items(), key=lambda item: item[0] + ("/" if item[1][0] == b"40000" else "")
    )
    content = b"".join(
        mode + b" " + name.encode() + b"\0" + bytes.fromhex(digest)
        for name, (mode, digest) in ordered
    )
    return git_digest("tree", content)


def list_tree(commit: Commit, folder: str, *, recursive: bool, expand: bool) -> list[Any]:
    """List what lies in a folder; folders and files together, by path."""
    prefix = f"{folder}/" if folder else ""
    if folder and all(entry.path != folder for entry in commit.folders):
        raise EntryNotFoundError(commit.sha)
    entries = [
        entry
        for entry in _entries(commit)
        if entry.path.startswith(prefix) and (recursive or "/" not in entry.path[len(prefix) :])
    ]
    entries.sort(key=lambda entry: entry.path)
    return [describe(entry, commit, expand=expand) for entry in entries]


def _entries(commit: Commit) -> list[FileEntry | FolderEntry]:
    return [*commit.folders, *commit.files]


def list_paths(commit: Commit, paths: Iterable[str], *, expand: bool) -> list[Any]:
    """Describe the given paths; what does not exist is left out."""
    wanted = {path.rstrip("/") for path in paths}
    return [
        describe(entry, commit, expand=expand) for entry in _entries(commit) if entry.path in wanted
    ]


def describe(entry: FileEntry | FolderEntry, commit: Commit, *, expand: bool) -> dict[str, Any]:
    """Describe a file or a folder as the tree and paths-info calls do."""
    if isinstance(entry, FolderEntry):
        shown: dict[str, Any] = {
            "type": "directory",
            "oid": entry.tree_id,
            "size": 0,
            "path": entry.path,
        }
    else:
        shown = {
            "type": "file",
            "oid": entry.blob_id,
            "size": entry.size_bytes,
            "path": entry.path,
        }
        if entry.is_lfs:
            shown["lfs"] = {
                "oid": entry.sha256,
                "size": entry.size_bytes,
                "pointerSize": entry.pointer_size,
            }
    if expand:
        shown["lastCommit"] = {
            "id": commit.sha,
            "title": "Publish the model",
            "date": commit.created_at,
        }
    return shown
