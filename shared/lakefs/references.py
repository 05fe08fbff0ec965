"""Repositories, branches, commits and merges of the store."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from shared.errors import ConflictError, NotFoundError, RequestError
from shared.lakefs.control import Control
from shared.lakefs.types import Commit, Repository

#: lakeFS' clock and the ledger's may differ by this much.
CLOCK_SKEW = timedelta(hours=1)


class References:
    """What lakeFS knows of history."""

    def __init__(self, control: Control, storage_namespace: str) -> None:
        self._control = control
        self._storage_namespace = storage_namespace

    def ensure_repository(self, name: str) -> Repository:
        """Return a repository, created if it is missing."""
        api, call = self._control.repositories, self._control.call
        with suppress(NotFoundError):
            return _repository(call(api.get_repository, name))
        creation = {
            "name": name,
            "storage_namespace": self._namespace(name),
            "default_branch": "main",
        }
        with suppress(ConflictError):  # somebody was faster
            return _repository(call(api.create_repository, creation))
        return _repository(call(api.get_repository, name))

    def ensure_branch(self, repo: str, branch: str, source: str | None = None) -> str:
        """Return the commit of a branch, created from ``source`` if it is missing.

        ``source`` defaults to the repository's default branch.
        """
        api, call = self._control.branches, self._control.call
        with suppress(NotFoundError):
            return str(call(api.get_branch, repo, branch).commit_id)
        with self._named(repo, source or branch):
            source = source or str(
                call(self._control.repositories.get_repository, repo).default_branch
            )
            creation = {"name": branch, "source": source}
            with suppress(ConflictError):  # somebody was faster
                call(api.create_branch, repo, creation)
            return str(call(api.get_branch, repo, branch).commit_id)

    def delete_branch(self, repo: str, branch: str) -> None:
        """Delete a branch with all that is not committed; no matter if it is not there."""
        with suppress(NotFoundError):
            self._control.call(self._control.branches.delete_branch, repo, branch)

    def commit(self, repo: str, ref: str) -> Commit:
        """Return the commit that a branch, a tag or a (shortened) id stands for."""
        with self._named(repo, ref):
            return _commit(self._control.call(self._control.commits.get_commit, repo, ref))

    def commit_id(self, repo: str, ref: str) -> str:
        """Return the full id of the commit that a reference stands for."""
        return self.commit(repo, ref).id

    def find_commit(self, repo: str, branch: str, job_id: str, since: datetime) -> Commit | None:
        """Return a job's commit on a branch by its metadata, among those made after ``since``."""
        with self._named(repo, branch):
            for entry in self._control.pages(
                self._control.refs.log_commits,
                repo,
                branch,
                first_parent=True,
                amount=50,  # the commit of a job that runs is among the newest
            ):
                commit = _commit(entry)
                if commit.metadata.get("job_id") == job_id:
                    return commit
                if commit.created_at < since - CLOCK_SKEW:
                    break
        return None

    def last_change(self, repo: str, ref: str, path: str) -> Commit | None:
        """Return the newest commit, up to a reference, that changed something in a directory."""
        only = {"prefixes": [f"{path}/"]} if path else {}
        api = self._control.refs
        with self._named(repo, ref):
            log = self._control.call(
                api.log_commits, repo, ref, amount=1, limit=True, first_parent=True, **only
            )
        return _commit(log.results[0]) if log.results else None

    def has_uncommitted(self, repo: str, branch: str) -> bool:
        """Return whether a branch has changes that are not committed."""
        api = self._control.branches
        with self._named(repo, branch):
            return bool(self._control.call(api.diff_branch, repo, branch, amount=1).results)

    def has_changes(self, repo: str, branch: str, since: str, path: str = "") -> bool:
        """Return whether ``branch`` has committed changes that it had not when the two parted.

        ``path`` looks into one directory only.
        """
        api = self._control.refs
        prefix = f"{path}/" if path else ""
        with self._named(repo, branch):
            found = self._control.call(
                api.diff_refs, repo, since, branch, amount=1, prefix=prefix, type="three_dot"
            )
        return bool(found.results)

    def commit_changes(
        self, repo: str, branch: str, message: str, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Commit what is on a branch and return the commit's id."""
        api = self._control.commits
        creation = {"message": message, "metadata": dict(metadata or {})}
        with self._named(repo, branch):
            return str(self._control.call(api.commit, repo, branch, creation).id)

    def merge(
        self,
        repo: str,
        source: str,
        target: str,
        *,
        message: str,
        metadata: Mapping[str, str] | None = None,
        strategy: Literal["source-wins", "dest-wins"] = "source-wins",
        squash: bool = False,
    ) -> str:
        """Merge a branch into another and return the commit's id.

        lakeFS refuses a target with uncommitted changes, and a source without changes since the
        two parted. It makes an empty commit where the target came to have the same changes.
        """
        merge = {
            "message": message,
            "metadata": dict(metadata or {}),
            "strategy": strategy,
            "squash_merge": squash,
        }
        api = self._control.refs
        with self._named(repo, source):
            answer = self._control.call(api.merge_into_branch, repo, source, target, merge=merge)
        return str(answer.reference)

    def _namespace(self, name: str) -> str:
        """Return where a new repository keeps its objects.

        Each creation has a place of its own: lakeFS refuses one that a repository has, one that
        was deleted, and one that it began to make.
        """
        prefix = self._storage_namespace or self._control.storage.default_namespace_prefix
        if not prefix:
            raise RequestError(
                "lakeFS has no default storage namespace: set LAKEFS_STORAGE_NAMESPACE",
                code="lakefs_storage_namespace_missing",
            )
        return f"{prefix.removesuffix('/')}/{name}-{secrets.token_hex(4)}"

    @contextmanager
    def _named(self, repo: str, ref: str, path: str | None = None) -> Iterator[None]:
        """Say which of repository, reference and path lakeFS did not find; its 404 does not."""
        try:
            yield
        except NotFoundError as error:
            if error.specific_code != NotFoundError.code:
                raise
            raise self._missing(repo, ref, path) or error from error

    def _missing(self, repo: str, ref: str, path: str | None) -> NotFoundError | None:
        """Find out what of an address does not exist; None if all of it does."""
        try:
            self._control.call(self._control.repositories.get_repository, repo)
        except NotFoundError:
            return NotFoundError(f"lakeFS has no repository {repo!r}", code="repository_not_found")
        try:
            self._control.call(self._control.commits.get_commit, repo, ref)
        except NotFoundError:
            return NotFoundError(
                f"lakeFS repository {repo!r} has no commit or branch {ref!r}",
                code="commit_not_found",
            )
        if path is None:
            return None
        return NotFoundError(
            f"commit or branch {ref!r} of lakeFS repository {repo!r} has no path {path!r}",
            code="path_not_found",
        )


def _repository(found: Any) -> Repository:  # the SDK's models are not typed
    return Repository(
        name=str(found.id),
        default_branch=str(found.default_branch),
        created_at=datetime.fromtimestamp(found.creation_date, UTC),
        storage_namespace=str(found.storage_namespace),
    )


def _commit(found: Any) -> Commit:
    return Commit(
        id=str(found.id),
        message=str(found.message),
        created_at=datetime.fromtimestamp(found.creation_date, UTC),
        metadata=dict(found.metadata or {}),
        parents=tuple(found.parents),
    )
