"""Models on disk: publish a directory as a revision, and read what was published.

Under the root, `.hub/blobs` holds every content once and `.hub/models/<org>--<name>` a model's
`repo.json` and its `commits/<sha>.json`. Nothing that a commit names is ever changed, so a server
reads while another process publishes.
"""

import fcntl
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from embedded.hub.blobs import BlobStore
from embedded.hub.errors import PublishError, RepoNotFoundError, RevisionNotFoundError
from embedded.hub.names import check_model_id, check_path, check_revision
from embedded.hub.records import DEFAULT_BRANCH, Commit, FileEntry, Repo
from embedded.hub.source import source_files
from embedded.hub.tree import build_folders

COMMIT_SHA = re.compile(r"[0-9a-f]{40}")


def publish(
    root: Path, model_id: str, directory: Path, revision: str = DEFAULT_BRANCH, *, tag: bool = False
) -> str:
    """Make a directory the newest state of a model's branch (or a tag) and return the commit."""
    return ModelStore(root).publish(model_id, directory, revision, tag=tag)


class ModelStore:
    """The models under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / ".hub"
        self._blobs = BlobStore(self._folder / "blobs")
        self._read_commit = lru_cache(maxsize=256)(self._load_commit)

    def publish(self, model_id: str, directory: Path, revision: str, *, tag: bool = False) -> str:
        """Do what `publish` says; the same content gives the same commit."""
        check_model_id(model_id)
        check_revision(revision)
        if COMMIT_SHA.fullmatch(revision):
            raise PublishError("A branch or tag cannot be named like a commit")
        commit = self._commit_of(model_id, directory)

        def point(repo: Repo) -> Repo:
            taken = repo.branches if tag else repo.tags
            if revision in taken:
                raise PublishError(f"{revision} is already a {'branch' if tag else 'tag'}")
            branches = {DEFAULT_BRANCH: commit.sha, **repo.branches}
            tags = dict(repo.tags)
            (tags if tag else branches)[revision] = commit.sha
            return repo.model_copy(update={"branches": branches, "tags": tags})

        self.update(model_id, point)
        return commit.sha

    def set_access(self, model_id: str, *, private: bool = False, gated: bool = False) -> None:
        """Hide a model from the anonymous, or show it but keep its files for token holders."""
        self.repo(model_id)
        self.update(
            model_id, lambda repo: repo.model_copy(update={"private": private, "gated": gated})
        )

    def model_ids(self) -> list[str]:
        """Return the ids of all models."""
        found = self._folder.glob("models/*/repo.json")
        return sorted(path.parent.name.replace("--", "/") for path in found)

    def repo(self, model_id: str) -> Repo:
        """Return the model as it is now."""
        try:
            text = (self._model_folder(model_id) / "repo.json").read_bytes()
        except FileNotFoundError:
            raise RepoNotFoundError from None
        return Repo.model_validate_json(text)

    def commit(self, repo: Repo, revision: str) -> Commit:
        """Resolve a branch, a tag or a commit."""
        short = re.sub(r"^refs/(heads|tags)/", "", revision)
        sha = repo.branches.get(short) or repo.tags.get(short) or revision
        if not COMMIT_SHA.fullmatch(sha):
            raise RevisionNotFoundError(revision)
        try:
            return self._read_commit(repo.model_id, sha)
        except FileNotFoundError:
            raise RevisionNotFoundError(revision) from None

    def blob(self, entry: FileEntry) -> Path:
        """Return where the content of a file lies."""
        return self._blobs.path(entry.sha256)

    def update(self, model_id: str, change: Callable[[Repo], Repo]) -> None:
        """Change a model's record, one process at a time."""
        folder = self._model_folder(model_id)
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            try:
                repo = self.repo(model_id)
            except RepoNotFoundError:
                repo = Repo(model_id=model_id, created_at=_now())
            _write(folder / "repo.json", change(repo).model_dump_json())

    def _commit_of(self, model_id: str, directory: Path) -> Commit:
        files = tuple(
            self._blobs.add(source, check_path(path)) for path, source in source_files(directory)
        )
        root_id, folders = build_folders(files)
        sha = hashlib.sha1(f"{model_id}\0{root_id}".encode(), usedforsecurity=False).hexdigest()
        target = self._model_folder(model_id) / "commits" / f"{sha}.json"
        if target.exists():
            return self._read_commit(model_id, sha)
        commit = Commit(
            sha=sha,
            created_at=_now(),
            files=files,
            folders=folders,
            config=_read_config(directory / "config.json"),
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, commit.model_dump_json())
        return commit

    def _load_commit(self, model_id: str, sha: str) -> Commit:
        path = self._model_folder(model_id) / "commits" / f"{sha}.json"
        return Commit.model_validate_json(path.read_bytes())

    def _model_folder(self, model_id: str) -> Path:
        return self._folder / "models" / check_model_id(model_id).replace("/", "--")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._folder / "lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as handle:
        handle.write(text)
    Path(handle.name).replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read_config(path: Path) -> dict[str, str | list[str]]:
    try:
        config = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    keys = ("model_type", "architectures") if isinstance(config, dict) else ()
    return {key: config[key] for key in keys if config.get(key)}
