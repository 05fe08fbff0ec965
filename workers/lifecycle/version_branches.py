"""Branches in lakeFS that hold the commits of registered versions.

lakeFS' garbage collection keeps the files of branches' heads, and not those of older commits beyond
its retention, tagged or not. So each version that MLflow has gets a branch at its commit, which is
deleted after the version.

The branch's name has the commit in it: a version's number begins at 1 again when a deleted name is
registered again, and a branch that never changes its commit can be deleted or made at any time.
"""

import hashlib
import re
from contextlib import suppress

import structlog

from shared.errors import ConflictError, RequestError
from shared.lakefs.listing import RepositoryListing
from shared.lakefs.store import LakeFSStore
from shared.ledger import OwnedBranches, VersionBranch
from shared.models import LakeFSLocation
from shared.registry import ModelRegistry

PREFIX = "keep-"
_COMMIT_ID = re.compile(r"[0-9a-f]{64}")
_NOT_IN_BRANCH = re.compile(r"[^A-Za-z0-9_]+")
_MODEL_LETTERS, _HASH_LETTERS, _COMMIT_LETTERS = 120, 8, 12

log = structlog.get_logger()


class VersionBranches:
    """Makes a branch for each version, and finds those that no version needs."""

    def __init__(
        self,
        store: LakeFSStore,
        listing: RepositoryListing,
        registry: ModelRegistry,
        branches: OwnedBranches,
    ) -> None:
        self._store = store
        self._listing = listing
        self._registry = registry
        self._branches = branches

    def hold(self, model: str, version: str, location: LakeFSLocation) -> str | None:
        """Make a version's commit the head of a branch; return why lakeFS refuses it, if it does.

        A refusal is recorded, and ``compare`` tries again.
        """
        branch = self._branch(model, version, location)
        try:
            self._branches.record(branch)
            head = self._store.ensure_branch(branch.repo, branch.name, source=branch.commit)
            if head != branch.commit:
                raise ConflictError(f"branch {branch.name!r} is at commit {head}: delete it")
        except RequestError as error:
            log.warning("version not held", branch=branch.address, reason=error.detail)
            self._branches.failed(branch, error)
            return error.detail
        self._branches.succeeded(branch.address)
        return None

    def compare(self) -> list[VersionBranch]:
        """Hold every version that is not held; return the recorded branches that no version needs.

        It costs a search in MLflow and a listing of the branches of each repository.
        """
        # Read before MLflow is searched: a version is created before its branch is recorded.
        recorded = {branch.address: branch for branch in self._branches.of_versions()}
        failures = self._branches.failures()
        versions = {
            self._branch(model, version, location).address: (model, version, location)
            for (model, version), location in self._registry.locations().items()
        }
        heads = self._heads({location.repo for _, _, location in versions.values()})
        for address, version in versions.items():
            branch, failure = recorded.get(address), failures.get(address)
            is_held = branch is not None and heads.get(address) == branch.commit
            if not is_held and (failure is None or failure.due):
                self.hold(*version)
        unneeded = [branch for address, branch in recorded.items() if address not in versions]
        for address, failure in failures.items():
            is_for_version = isinstance(failure.branch, VersionBranch)
            if is_for_version and address not in recorded and address not in versions:
                self._branches.succeeded(address)
        return unneeded

    def is_needed(self, branch: VersionBranch) -> bool:
        """Ask MLflow whether a branch's version exists, and is at the branch's commit."""
        location = self._registry.location(branch.model, branch.version)
        if location is None:
            return False
        return self._branch(branch.model, branch.version, location).address == branch.address

    def is_moved(self, branch: VersionBranch) -> bool:
        """Return whether somebody put another commit on a branch, which is theirs since then."""
        return self._heads({branch.repo}).get(branch.address, branch.commit) != branch.commit

    def _heads(self, repos: set[str]) -> dict[str, str]:
        """Return the commits of all branches that may be ours, by address."""
        heads: dict[str, str] = {}
        for repo in sorted(repos):
            with suppress(RequestError):  # what is wrong with it is found out for each version
                found = self._listing.branches(repo, PREFIX)
                heads |= {f"{repo}/{name}": commit for name, commit in found.items()}
        return heads

    def _branch(self, model: str, version: str, location: LakeFSLocation) -> VersionBranch:
        commit = self._commit(location)
        return VersionBranch(
            repo=location.repo,
            name=branch_name(model, version, commit),
            model=model,
            version=version,
            commit=commit,
        )

    def _commit(self, location: LakeFSLocation) -> str:
        """Return the full id of a location's commit: other clients may have registered a ref."""
        if not _COMMIT_ID.fullmatch(location.commit):
            with suppress(RequestError):
                return self._store.commit_id(location.repo, location.commit)
        return location.commit


def branch_name(model: str, version: str, commit: str) -> str:
    """Return the name of a version's branch, within lakeFS' rules for names.

    The model's name has letters that a branch cannot have: then a hash tells it from others.
    """
    slug = _NOT_IN_BRANCH.sub("-", model).strip("-")[:_MODEL_LETTERS]
    if slug != model:
        slug = f"{slug}-{hashlib.sha256(model.encode()).hexdigest()[:_HASH_LETTERS]}".strip("-")
    short = _NOT_IN_BRANCH.sub("-", commit)[:_COMMIT_LETTERS]
    return f"{PREFIX}{slug}-v{version}-{short}"
