"""JSON bodies that the server answers with, with lakeFS's field names."""

from typing import Any

from embedded.lakefs.changes import Change
from embedded.lakefs.model import Commit, Entry, Ref, Repository
from embedded.lakefs.presigning import Link

Json = dict[str, Any]


def repository(item: Repository) -> Json:
    """Show a repository."""
    return {
        "id": item.id,
        "creation_date": item.created,
        "default_branch": item.default_branch,
        "storage_id": "",
        "storage_namespace": item.storage_namespace,
        "read_only": item.read_only,
    }


def ref(item: Ref) -> Json:
    """Show a branch or a tag."""
    return {"id": item.id, "commit_id": item.commit_id}


def commit(item: Commit) -> Json:
    """Show a commit."""
    return {
        "id": item.id,
        "parents": list(item.parents),
        "committer": item.committer,
        "message": item.message,
        "creation_date": item.created_ns // 10**9,
        "meta_range_id": item.tree_id,
        "metadata": dict(item.metadata),
        "generation": item.generation,
        "version": 1,
    }


def changed_prefix(path: str) -> Json:
    """Show a prefix below which something differs."""
    return {"type": "prefix_changed", "path": path, "path_type": "common_prefix"}


def change(path: str, item: Change) -> Json:
    """Show a path that differs between two refs, with the size of what was removed."""
    entry = item.right or item.left
    return _change(path, item, entry)


def staged_change(path: str, item: Change) -> Json:
    """Show a path that is staged; lakeFS knows no size of what is staged as removed."""
    return _change(path, item, item.right)


def _change(path: str, item: Change, entry: Entry | None) -> Json:
    size_bytes = entry.size_bytes if entry else 0
    return {"type": item.type, "path": path, "path_type": "object", "size_bytes": size_bytes}


def entry(path: str, item: Entry, address: str) -> Json:
    """Show an object that is at `address`."""
    return {
        "path": path,
        "path_type": "object",
        "physical_address": address,
        "checksum": item.checksum,
        "size_bytes": item.size_bytes,
        "mtime": item.mtime,
        "content_type": item.content_type,
        "metadata": dict(item.metadata),
    }


def linked_entry(path: str, item: Entry, link: Link) -> Json:
    """Show an object that can be fetched from a signed link."""
    return {**entry(path, item, link.url), "physical_address_expiry": link.expires}


def common_prefix(path: str) -> Json:
    """Show a prefix that objects share."""
    return {
        "path": path,
        "path_type": "common_prefix",
        "physical_address": "",
        "checksum": "",
        "mtime": 0,
    }
