"""What the hub tells about a model."""

from typing import Any

from embedded.hub.records import Commit, FileEntry, Repo


def model_info(repo: Repo, commit: Commit, *, blobs: bool, security: bool) -> dict[str, Any]:
    """Describe a model at a commit; `blobs` adds sizes and digests of its files."""
    info: dict[str, Any] = {
        **summary(repo),
        "sha": commit.sha,
        "lastModified": commit.created_at,
        "disabled": False,
        "usedStorage": commit.size_bytes,
        "config": commit.config,
        "spaces": [],
        "siblings": [_sibling(entry, blobs=blobs) for entry in commit.files],
    }
    if security:
        info["securityRepoStatus"] = {"scansDone": False, "filesWithIssues": []}
    return info


def expanded_info(repo: Repo, commit: Commit, properties: list[str]) -> dict[str, Any]:
    """Describe only the properties that were asked for, besides the id."""
    info = model_info(repo, commit, blobs=False, security=False)
    keep = {"_id", "id", *properties}
    return {key: value for key, value in info.items() if key in keep}


def refs(repo: Repo, *, pull_requests: bool) -> dict[str, Any]:
    """List branches and tags."""
    listed: dict[str, Any] = {
        "branches": _named(repo.branches, "heads"),
        "tags": _named(repo.tags, "tags"),
        "converts": [],
    }
    if pull_requests:
        listed["pullRequests"] = []
    return listed


def summary(repo: Repo) -> dict[str, Any]:
    """Describe a model as it stands in a list of them."""
    organisation, slash, _ = repo.model_id.partition("/")
    return {
        "_id": repo.model_id,
        "id": repo.model_id,
        "modelId": repo.model_id,
        "author": organisation if slash else None,
        "createdAt": repo.created_at,
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }


def _sibling(entry: FileEntry, *, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": entry.path}
    if blobs:
        sibling |= {"blobId": entry.blob_id, "size": entry.size_bytes}
        if entry.is_lfs:
            sibling["lfs"] = {
                "sha256": entry.sha256,
                "size": entry.size_bytes,
                "pointerSize": entry.pointer_size,
            }
    return sibling


def _named(targets: dict[str, str], kind: str) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}
        for name, sha in sorted(targets.items())
    ]
