"""Deletes the branches in lakeFS that jobs left behind; a thread of every CPU worker.

An upload deletes its branch when it ends. It cannot where its worker was killed, where lakeFS did
not answer, or where a hook refused: then the branch stays recorded (``shared/ledger/branches.py``)
and is deleted here. Once in a while one worker also compares the branches of versions with MLflow.
"""

import time
from collections.abc import Sequence

import structlog

from shared.errors import LifecycleError, RequestError, UnavailableError
from shared.lakefs.store import LakeFSStore
from shared.ledger import JobBranch, Ledger, OwnedBranch, OwnedBranches, VersionBranch
from shared.settings import WorkerSettings
from workers.lifecycle.version_branches import VersionBranches

log = structlog.get_logger()


class BranchSweeper:
    """Deletes what is recorded and no longer needed; any number of workers may do so at once."""

    def __init__(
        self,
        ledger: Ledger,
        branches: OwnedBranches,
        store: LakeFSStore,
        versions: VersionBranches,
        settings: WorkerSettings,
        reserve_seconds: float,
    ) -> None:
        """``reserve_seconds`` is longer than a deletion in lakeFS can take."""
        self._ledger = ledger
        self._branches = branches
        self._store = store
        self._versions = versions
        self._settings = settings
        self._reserve_seconds = reserve_seconds

    def run(self) -> None:
        """Sweep until the process ends, whatever happens; the body of a thread."""
        while True:
            time.sleep(self._settings.branch_sweep_seconds)
            try:
                self.sweep_jobs()
                self.sweep_versions()
            except UnavailableError as error:
                log.warning("branches not swept", reason=error.detail)
            except Exception:
                log.exception("defect in the branch sweeper")

    def sweep_jobs(self) -> None:
        """Delete the branches of jobs that have ended, or that the ledger does not know."""
        self._delete([each for each in self._branches.of_jobs() if not self._is_needed(each)])

    def sweep_versions(self) -> None:
        """Hold the versions that are not held, and delete the branches of those that are gone."""
        if not self._branches.take_turn(self._settings.version_branches_seconds):
            return
        try:
            unneeded = self._versions.compare()
        except LifecycleError:
            self._branches.give_turn_back()
            raise
        self._delete(unneeded)

    def _delete(self, branches: Sequence[OwnedBranch]) -> None:
        failures = self._branches.failures() if branches else {}
        for branch in branches:
            failure = failures.get(branch.address)
            if failure is not None and not failure.due:
                continue
            reservation = self._branches.reserve(branch, self._reserve_seconds)
            if reservation is not None:
                self._delete_reserved(branch, reservation)

    def _delete_reserved(self, branch: OwnedBranch, reservation: str) -> None:
        """Delete a branch if nothing needs it now: the job may have been queued again."""
        is_deleted = False
        try:
            if not self._is_needed(branch):
                self._delete_in_lakefs(branch)
                is_deleted = True
        except RequestError as error:
            log.warning("branch not deleted", branch=branch.address, reason=error.detail)
            self._branches.failed(branch, error)
        finally:
            self._branches.release(branch, reservation, is_deleted=is_deleted)

    def _is_needed(self, branch: OwnedBranch) -> bool:
        if isinstance(branch, JobBranch):
            return not self._ledger.ended(branch.job_id)
        return self._versions.is_needed(branch)

    def _delete_in_lakefs(self, branch: OwnedBranch) -> None:
        if isinstance(branch, VersionBranch) and self._versions.is_moved(branch):
            log.warning("branch left to whoever moved it", branch=branch.address)
            return
        try:
            self._store.delete_branch(branch.repo, branch.name)
        except UnavailableError as error:
            self._branches.failed(branch, error)
            raise
        log.info("branch deleted", branch=branch.address)
