"""A lakeFS server that repositories are moved from or to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shared.lakefs.store import LakeFSStore

#: Commits asked for at once. Most calls need only a few: they stop at commits that are known.
_LOG_PAGE = 100


@dataclass(frozen=True)
class Revision:
    """A commit with everything that is moved of it."""

    id: str
    parents: tuple[str, ...]
    message: str
    committer: str
    #: Unix seconds.
    created: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class References:
    """The branches and tags of a repository, by name, with their commits."""

    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    #: Branches that lakeFS leaves out of its ordinary listing.
    hidden: frozenset[str] = frozenset()


class Server(LakeFSStore):
    """The store, with the calls that only a move needs."""

    def repositories(self) -> dict[str, str]:
        """Return the default branch of every repository, by the repository's name."""
        found = self._control.pages(self._control.repositories.list_repositories)
        return {str(each.id): str(each.default_branch) for each in found}

    def references(self, repo: str) -> References:
        """Return the branches and tags of a repository."""
        listing = self._control.branches.list_branches
        visible = _by_name(self._control.pages(listing, repo))
        branches = _by_name(self._control.pages(listing, repo, show_hidden=True))
        tags = _by_name(self._control.pages(self._control.tags.list_tags, repo))
        return References(branches, tags, frozenset(branches.keys() - visible.keys()))

    def revision(self, repo: str, ref: str) -> Revision:
        """Return the commit that a reference stands for."""
        with self._named(repo, ref):
            return _revision(self._control.call(self._control.commits.get_commit, repo, ref))

    def history(self, repo: str, commits: Iterable[str]) -> dict[str, Revision]:
        """Return these commits and all their ancestors."""
        known: dict[str, Revision] = {}
        waiting = list(commits)
        while waiting:
            commit = waiting.pop()
            if commit in known:
                continue
            page = self._control.call(
                self._control.refs.log_commits, repo, commit, amount=_LOG_PAGE, limit=True
            )
            for revision in map(_revision, page.results):
                known[revision.id] = revision
                waiting += revision.parents
        return known

    def create_branch(self, repo: str, name: str, commit: str, *, hidden: bool = False) -> None:
        """Create a branch at a commit."""
        creation = {"name": name, "source": commit, "hidden": hidden}
        self._control.call(self._control.branches.create_branch, repo, creation)

    def create_tag(self, repo: str, name: str, commit: str) -> None:
        """Create a tag at a commit."""
        creation = {"id": name, "ref": commit}
        self._control.call(self._control.tags.create_tag, repo, creation)

    def copy(self, repo: str, branch: str, path: str, commit: str) -> None:
        """Put an object of a commit on a branch, under the same path; the server does it."""
        source = {"src_path": path, "src_ref": commit}
        self._control.call(self._control.objects.copy_object, repo, branch, path, source)

    def commit_again(
        self, repo: str, branch: str, revision: Revision, metadata: Mapping[str, str]
    ) -> str:
        """Commit what is on a branch with the message and time of another commit."""
        creation = {
            "message": revision.message,
            "metadata": dict(metadata),
            "date": revision.created,
            "allow_empty": True,
        }
        with self._named(repo, branch):
            made = self._control.call(self._control.commits.commit, repo, branch, creation)
        return str(made.id)


def _by_name(found: Iterable[Any]) -> dict[str, str]:
    return {str(each.id): str(each.commit_id) for each in found}


def _revision(found: Any) -> Revision:  # the SDK's models are not typed
    return Revision(
        id=str(found.id),
        parents=tuple(found.parents),
        message=str(found.message),
        committer=str(found.committer),
        created=int(found.creation_date),
        metadata=dict(found.metadata or {}),
    )


def when(revision: Revision) -> str:
    """Return the time of a commit, readable."""
    return datetime.fromtimestamp(revision.created, UTC).isoformat()
