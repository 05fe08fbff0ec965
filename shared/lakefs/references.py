"""Repositories, branches, commits and merges of the store."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from shared.errors import ConflictError, InvalidInputError, NotFoundError, RequestError
from shared.lakefs.control import Control
from shared.lakefs.types import Commit, Repository

#: lakeFS' clock and the ledger's may differ by this much.
CLOCK_SKEW = timedelta(hours=1)


class References:
    """What lakeFS knows of history."""

    def __init__(self, control: Control, storage_namespace: str) -> None:
        self._control = control
        self._storage_namespace = storage_namespace

    def ensure_repository(self, name: str, default_branch: str = "main") -> Repository:
        """Return a repository, created with that default branch if it is missing."""
        api, call = self._control.repositories, self._control.call
        with suppress(NotFoundError):
            return _repository(call(api.get_repository, name))
        creation = {
            "name": name,
            "storage_namespace": self._namespace(name),
            "default_branch": default_branch,
        }
        with suppress(ConflictError):  # somebody was faster
            return _repository(call(api.create_repository, creation))
        return _repository(call(api.get_repository, name))

    def ensure_branch(self, repo: str, branch: str, source: str | None = None) -> str:
        """Return the commit of a branch, created from ``source`` if it is missing.

        ``source`` defaults to the repository's default branch.
        """
        api, call = self._control.branches, self._control.call
        if head := self.branch_head(repo, branch):
            return head
        with self._named(repo, source or branch):
            source = source or str(
                call(self._control.repositories.get_repository, repo).default_branch
            )
            try:
                call(api.create_branch, repo, {"name": branch, "source": source})
            except ConflictError:
                # Somebody was faster; or it was refused, by a hook or because of its name.
                if head := self.branch_head(repo, branch):
                    return head
                raise
            return str(call(api.get_branch, repo, branch).commit_id)

    def branch_head(self, repo: str, branch: str) -> str | None:
        """Return the commit of a branch; None if no branch has that name, or none may have it."""
        api = self._control.branches
        with suppress(NotFoundError, InvalidInputError):
            return str(self._control.call(api.get_branch, repo, branch).commit_id)
        return None

    def tagged_commit(self, repo: str, tag: str) -> str | None:
        """Return the commit of a tag; None if there is no tag of that name."""
        with suppress(NotFoundError):
            return str(self._control.call(self._control.tags.get_tag, repo, tag).commit_id)
        return None

    def delete_branch(self, repo: str, branch: str) -> None:
        """Delete a branch with all that is not committed; no matter if it is not there."""
        with suppress(NotFoundError):
            self._control.call(self._control.branches.delete_branch, repo, branch)

    def commit(self, repo: str, ref: str) -> Commit:
        """Return the commit that a branch, a tag or a (shortened) id stands for."""
        with self._named(repo, ref):
            return _commit(self._control.call(self._control.commits.get_commit, repo, ref))

    def commit_by_id(self, repo: str, commit_id: str) -> Commit:
        """Return a commit by its id or the beginning of it, never by a tag's or branch's name."""
        commit = self.commit(repo, commit_id)
        if commit.id.startswith(commit_id):
            return commit
        raise InvalidInputError(
            f"{commit_id!r} is not the id of a commit of lakeFS repository {repo!r}, but the name "
            f"of a tag or branch (of commit {commit.id[:12]}): give the name as ref, or more "
            "digits of the commit's id",
            field="commit_id",
            code="not_a_commit_id",
        )

    def is_commit_id(self, repo: str, text: str) -> bool:
        """Return whether a text is the id of a commit or the beginning of one."""
        with suppress(NotFoundError):
            return self.commit(repo, text).id.startswith(text)
        return False

    def commit_by_name(self, repo: str, ref: str) -> Commit:
        """Return the commit that a tag, or the head of a branch, is at this moment."""
        with self._named(repo, ref):
            commit_id = self.tagged_commit(repo, ref) or self.branch_head(repo, ref)
            if commit_id is not None:
                return self.commit(repo, commit_id)
            self._control.call(self._control.repositories.get_repository, repo)
        raise NotFoundError(
            f"lakeFS repository {repo!r} has no tag or branch {ref!r}",
            field="ref",
            code="ref_not_found",
        )

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
        return bool(self.uncommitted(repo, branch, at_most=1))

    def uncommitted(self, repo: str, branch: str, at_most: int) -> list[str]:
        """Return the first paths of a branch that have changes that are not committed."""
        api = self._control.branches
        with self._named(repo, branch):
            found = self._control.call(api.diff_branch, repo, branch, amount=at_most)
        return [str(change.path) for change in found.results]

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

    def _missing(self, repo: str, ref: str, path: str | None) -> RequestError | None:
        """Find out what of an object's address does not exist; None if all of it does."""
        if error := self._missing_reference(repo, ref):
            return error
        if path is None:
            return None
        if not self._has_object(repo, ref, path):
            return _no_path(repo, ref, path)
        return NotFoundError(
            f"{path!r} is listed in {ref!r} of lakeFS repository {repo!r}, but the object store "
            "does not have its data any more: garbage collection or somebody deleted it there. "
            "Upload the model again",
            code="object_data_missing",
        )

    def _missing_directory(self, repo: str, ref: str, path: str) -> RequestError | None:
        """Find out why nothing is listed under a directory; None if the commit is empty."""
        if (error := self._missing_reference(repo, ref)) or not path:
            return error
        if not self._has_object(repo, ref, path):
            return _no_path(repo, ref, path)
        directory = path.rpartition("/")[0]
        return InvalidInputError(
            f"{path!r} in {ref!r} of lakeFS repository {repo!r} is a file; path names the model's "
            f"directory{f', which may be {directory!r}' if directory else ''}",
            field="path",
            code="path_is_a_file",
        )

    def _has_object(self, repo: str, ref: str, path: str) -> bool:
        """Return whether a file is listed at a path, whether or not its data is still there."""
        objects = self._control.objects
        try:
            self._control.call(objects.stat_object, repo, ref, path, presign=False)
        except NotFoundError:
            return False
        return True

    def _missing_reference(self, repo: str, ref: str) -> NotFoundError | None:
        """Find out whether the repository or the reference does not exist."""
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
        return None


def _no_path(repo: str, ref: str, path: str) -> NotFoundError:
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
        read_only=bool(found.read_only),
    )


def _commit(found: Any) -> Commit:
    return Commit(
        id=str(found.id),
        message=str(found.message),
        created_at=datetime.fromtimestamp(found.creation_date, UTC),
        metadata=dict(found.metadata or {}),
        parents=tuple(found.parents),
    )
