"""Moves one repository: commits, branches and tags.

Nothing about a move is kept outside the target. A tag named by a commit's old id says that the
commit has moved, and where to. It also makes old addresses, ``lakefs://repository/<old id>/path``,
work on the new server. A commit that was made but not tagged when a move was stopped is recognized
by its metadata.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from embedded.moving.lines import Line, lines
from embedded.moving.server import References, Server, when
from embedded.moving.transfer import Content, Transfer, content, same
from shared.errors import ConflictError, InternalError, NotFoundError

#: Keys of a moved commit's metadata: its id, committer and time on the embedded server.
MOVED_FROM = "moved_from"
MOVED_COMMITTER = "moved_committer"
MOVED_CREATED_AT = "moved_created_at"

_COMMIT_ID = re.compile(r"[0-9a-f]{64}")
#: Branches that the platform makes again by itself: those of jobs (``workers.lifecycle.upload``),
#: and those that hold the commits of versions and are named by them (``version_branches``).
_PLATFORMS_BRANCH = re.compile(
    r"job-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|keep-.+-v\d+-[0-9a-f]{12}"
)
#: The name of a branch on which commits are made that no branch leads to begins with this.
_TEMPORARY = "moving-"


class Listener(Protocol):
    """Is told how far a move is."""

    def on_bytes(self, size_bytes: int) -> None:
        """Take note of bytes that arrived; negative for those that are sent again."""

    def on_commit(self, repository: str, message: str, /) -> None:
        """Take note of a commit that was moved."""


@dataclass(frozen=True)
class Plan:
    """What is left to move of a repository."""

    repository: str
    lines: tuple[Line, ...]
    #: Files that the commits add or replace.
    files: int
    #: Bytes to send for them.
    size_bytes: int
    #: What is left out, and why, for the operator.
    problems: list[str] = field(default_factory=list)

    @property
    def commits(self) -> int:
        """The number of commits to make."""
        return sum(len(line.commits) for line in self.lines)


class RepositoryMove:
    """One repository on its way from one server to another."""

    def __init__(
        self,
        source: Server,
        target: Server,
        transfer: Transfer,
        default_branch: str,
        registered: Collection[str],
    ) -> None:
        """``registered`` are commits to move beside the heads of branches and tagged commits."""
        self._source = source
        self._target = target
        self._transfer = transfer
        self._repository = transfer.repository
        self._default_branch = default_branch
        found = source.references(self._repository)
        self._hidden = found.hidden
        self._branches = {
            name: head
            for name, head in found.branches.items()
            if not _PLATFORMS_BRANCH.fullmatch(name)
        }
        self._tags = {
            name: commit for name, commit in found.tags.items() if not _COMMIT_ID.fullmatch(name)
        }
        self._wanted = {*registered, *self._branches.values(), *self._tags.values()}
        self._history = source.history(self._repository, self._wanted)
        #: New ids by old ids.
        self.moved: dict[str, str] = {}
        #: Moved by a run that was stopped before it could compare and tag them.
        self._untagged: dict[str, str] = {}
        self._theirs = self._look()

    def plan(self) -> Plan:
        """Return what is left to do; changes nothing."""
        moved = {*self.moved, self._root}
        left = tuple(
            lines(self._history, self._branches, self._default_branch, self._wanted, moved)
        )
        files, size_bytes, seen = 0, 0, set[Content]()
        for line in left:
            before = self._transfer.files(line.base) if line.commits else {}
            for commit in line.commits:
                after = self._transfer.files(commit)
                new = [file for path, file in after.items() if not same(file, before.get(path))]
                files += len(new)
                size_bytes += sum(file.size_bytes for file in new if content(file) not in seen)
                seen.update(map(content, new))
                before = after
        problems = [
            f"branch {name!r} of {self._repository!r} has uncommitted changes, which are not moved"
            for name in sorted(self._branches)
            if self._source.has_uncommitted(self._repository, name)
        ]
        return Plan(self._repository, left, files, size_bytes, problems)

    def run(self, plan: Plan, listener: Listener) -> None:
        """Do what is left. A move that was stopped before goes on where it ended."""
        self._target.ensure_repository(self._repository, self._default_branch)
        self._theirs = self._look()
        for old, new in list(self._untagged.items()):
            self._settle(old, new)
        for line in plan.lines:
            self._make(line, plan, listener)
        for name, commit in self._tags.items():
            self._tag(name, self.moved[commit], plan)

    def tag_source(self) -> None:
        """Tag the old commits by their new ids, so that new addresses work on the source too."""
        tags = self._source.references(self._repository).tags
        for old, new in self.moved.items():
            if old in self._history and new not in tags:
                self._source.create_tag(self._repository, new, old)

    @cached_property
    def _root(self) -> str:
        """The repository's first commit, which is empty."""
        return next(each.id for each in self._history.values() if not each.parents)

    def _look(self) -> References:
        """Find out what the target has; a repository that no move made is refused."""
        try:
            theirs = self._target.references(self._repository)
        except NotFoundError:
            return References()
        self.moved = {name: to for name, to in theirs.tags.items() if _COMMIT_ID.fullmatch(name)}
        if self._root not in self.moved:
            self._untagged[self._root] = self.moved[self._root] = self._first_commit(theirs)
        for head in set(theirs.branches.values()) - set(self.moved.values()):
            before = self._target.revision(self._repository, head).metadata.get(MOVED_FROM, "")
            if before in self._history and before not in self.moved:
                self._untagged[before] = self.moved[before] = head
        return theirs

    def _first_commit(self, theirs: References) -> str:
        """Return the only commit of an empty repository, as a move that was stopped leaves it."""
        head = theirs.branches.get(self._default_branch)
        if (
            head is None
            or len(theirs.branches) > 1
            or self._target.revision(self._repository, head).parents
            or self._target.has_uncommitted(self._repository, self._default_branch)
        ):
            raise ConflictError(
                f"the new server has a repository {self._repository!r} that was not moved there: "
                "delete it there, or move to another server",
                code="repository_exists",
            )
        return head

    def _make(self, line: Line, plan: Plan, listener: Listener) -> None:
        """Make the commits of a line on its branch, which then has the right head."""
        base, branch = self.moved[line.base], line.branch
        if branch is not None and not self._is_ours(branch, base):
            plan.problems.append(
                f"branch {branch!r} of {self._repository!r} was changed on the new server: it was "
                "left as it is there"
            )
            branch = None
        if branch is None and not line.commits:
            return
        name = branch or _TEMPORARY + line.commits[-1][:16]
        self._open(name, base)
        for commit in line.commits:
            self._transfer.bring(name, commit)
            new = self._commit(name, commit)
            self._settle(commit, new)
            listener.on_commit(self._repository, self._history[commit].message)
        if branch is None:
            self._target.delete_branch(self._repository, name)

    def _is_ours(self, branch: str, base: str) -> bool:
        """Return whether the target's branch may be moved on from a commit, or replaced."""
        head = self._theirs.branches.get(branch)
        if head in {None, base}:
            return True
        return (
            branch != self._default_branch
            and head in self.moved.values()
            and not self._target.has_uncommitted(self._repository, branch)
        )

    def _open(self, branch: str, base: str) -> None:
        """Have a branch on the target whose head is ``base``."""
        head = self._theirs.branches.get(branch)
        if head == base:
            return
        if head is not None:
            self._target.delete_branch(self._repository, branch)
        hidden = branch in self._hidden
        self._target.create_branch(self._repository, branch, base, hidden=hidden)

    def _commit(self, branch: str, commit: str) -> str:
        """Commit what was brought, with the old commit's message, time and metadata."""
        revision = self._history[commit]
        metadata = revision.metadata | {
            MOVED_FROM: revision.id,
            MOVED_COMMITTER: revision.committer,
            MOVED_CREATED_AT: when(revision),
        }
        return self._target.commit_again(self._repository, branch, revision, metadata)

    def _settle(self, old: str, new: str) -> None:
        """Compare a new commit with the old one, and write down that it has moved."""
        if wrong := self._transfer.differences(old, new):
            raise InternalError(
                f"commit {new[:12]} of {self._repository!r} on the new server does not hold the "
                f"files of {old[:12]}: {', '.join(wrong[:5])}"
            )
        self._target.create_tag(self._repository, old, new)
        self.moved[old] = new

    def _tag(self, name: str, commit: str, plan: Plan) -> None:
        there = self._theirs.tags.get(name)
        if there is None:
            self._target.create_tag(self._repository, name, commit)
        elif there != commit:
            plan.problems.append(
                f"tag {name!r} of {self._repository!r} is at another commit on the new server: it "
                "was left as it is there"
            )
