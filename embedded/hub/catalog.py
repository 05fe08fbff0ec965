"""Model directories that lie under the root are published when the server starts."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from embedded.hub.errors import RepoNotFoundError
from embedded.hub.records import DEFAULT_BRANCH, Repo
from embedded.hub.repository import ModelStore
from embedded.hub.source import source_files


def publish_found(store: ModelStore) -> list[str]:
    """Publish the directories that are new or changed since the last start; return their ids."""
    published = []
    for model_id, directory in find_models(store.root):
        state = fingerprint(directory)
        try:
            if store.repo(model_id).fingerprint == state:
                continue
        except RepoNotFoundError:
            pass
        store.publish(model_id, directory, DEFAULT_BRANCH)
        store.update(model_id, partial(_remember, state))
        published.append(model_id)
    return published


def _remember(state: str, repo: Repo) -> Repo:
    return repo.model_copy(update={"fingerprint": state})


def fingerprint(directory: Path) -> str:
    """Return a digest of names, sizes and times: whether to publish again, without reading all."""
    digest = hashlib.sha256()
    for path, source in source_files(directory):
        stat = source.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def find_models(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield `<name>/` and `<org>/<name>/` under the root; a model is a folder that holds files."""
    for folder in _folders(root):
        if _holds_files(folder):
            yield folder.name, folder
            continue
        for below in _folders(folder):
            if _holds_files(below):
                yield f"{folder.name}/{below.name}", below


def _folders(parent: Path) -> list[Path]:
    return sorted(
        path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.iterdir())
