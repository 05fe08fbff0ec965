"""Moves all repositories, and points the registered versions to the new commits."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedded.moving.repository import Listener, Plan, RepositoryMove
from embedded.moving.server import Server
from embedded.moving.transfer import Transfer
from shared.cancellation import CancelToken
from shared.errors import NotFoundError
from shared.models import manifest_digest
from shared.registry.relocation import LocatedVersion, Relocation
from shared.settings import LakeFSSettings, MLflowSettings


@dataclass
class Report:
    """What a move has to do, or has done."""

    plans: list[Plan] = field(default_factory=list)
    #: Versions that point to new commits, counting only those that this run changes.
    versions: int = 0
    #: What should have been moved, and was not.
    problems: list[str] = field(default_factory=list)
    #: Versions of other lakeFS servers.
    foreign: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Bytes to send."""
        return sum(plan.size_bytes for plan in self.plans)


@dataclass(frozen=True)
class _Registered:
    """A version and the commit of the source that it stands for."""

    version: LocatedVersion
    commit: str


class Move:
    """A move from one lakeFS server to another; it can be repeated, and goes on where it ended."""

    def __init__(
        self,
        source: LakeFSSettings,
        target: LakeFSSettings,
        mlflow: MLflowSettings,
        *,
        scratch: Path,
        cancel: CancelToken,
    ) -> None:
        self._source = Server(source)
        self._target = Server(target)
        self._relocation = Relocation(mlflow)
        self._scratch = scratch
        self._threads = target.concurrent_files
        self._cancel = cancel
        self.report = Report()
        self._moves: dict[str, RepositoryMove] = {}
        self._registered: list[_Registered] = []

    def close(self) -> None:
        """Give the connections back."""
        self._source.close()
        self._target.close()

    def check(self) -> None:
        """Raise if the new server does not answer, or refuses the keys."""
        self._target.health()

    def plan(self, listener: Listener) -> None:
        """Find out what is left to move; changes nothing."""
        self._registered = list(self._versions())
        commits = defaultdict[str, set[str]](set)
        for each in self._registered:
            commits[each.version.location.repo].add(each.commit)
        for name, default_branch in self._source.repositories().items():
            self._cancel.check()
            transfer = Transfer(
                self._source,
                self._target,
                name,
                self._cancel,
                self._scratch,
                self._threads,
                listener.on_bytes,
            )
            move = RepositoryMove(
                self._source, self._target, transfer, default_branch, commits[name]
            )
            self._moves[name] = move
            plan = move.plan()
            self.report.plans.append(plan)
            self.report.problems += plan.problems
        self.report.versions = sum(1 for each in self._registered if self._is_left(each))

    def move_repositories(self, listener: Listener) -> None:
        """Move commits, branches and tags as planned."""
        for plan in self.report.plans:
            plan.problems.clear()
            self._moves[plan.repository].run(plan, listener)
            self.report.problems += plan.problems

    def point_versions(self) -> None:
        """Point the versions to the new commits; nobody should use the source from here on.

        For those who go back to it nevertheless, the new ids become tags there.
        """
        for move in self._moves.values():
            move.tag_source()
        for each in self._registered:
            self._cancel.check()
            if self._is_left(each):
                self._point(each)

    def _point(self, each: _Registered) -> None:
        location = each.version.location
        new = self._moves[location.repo].moved[each.commit]
        manifest = location.manifest
        # Files without a recorded sha256 are listed in it by the server's own checksum. They have
        # one on the new server, so no manifest holds on both.
        if manifest != manifest_digest(self._target.files(location.repo, new, location.path)):
            manifest = ""
        self._relocation.relocate(each.version, each.commit, new, manifest)

    def _versions(self) -> Iterator[_Registered]:
        """Yield the versions whose commits the source has."""
        for version in self._relocation.versions():
            location = version.location
            try:
                commit = self._source.revision(location.repo, location.commit).id
            except NotFoundError:
                self.report.foreign.append(f"{version} at {location.uri}")
            else:
                yield _Registered(version, commit)

    def _is_left(self, each: _Registered) -> bool:
        location = each.version.location
        return self._moves[location.repo].moved.get(each.commit) != location.commit
