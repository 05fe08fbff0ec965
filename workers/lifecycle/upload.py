"""Commit a model of the staging area to lakeFS.

Each step may be done again after a crash anywhere:

1. Look for the job's commit on the target by its metadata: an earlier run may have made it.
2. Make a branch of the job's own from the target's head; reuse it if it is there.
3. Make the model's directory there equal to the staged model: upload what differs, delete what is
   left over, commit.
4. If another writer changed the directory on the target meanwhile, merge the target into the job's
   branch and repeat step 3.
5. Squash the branch into one commit on the target, with the metadata that step 1 looks for.
6. List the directory at that commit. If it is not the staged model, merge the target into the
   job's branch and repeat from step 3.

lakeFS has no compare-and-swap of a branch's head: where the target moves between steps 4 and 5 it
merges again by itself, and the commit may hold files of both writers. Its merge can also drop a
record (case L2 of ``tests/lakefs_faults.py``). Step 6 finds both, so the commit that the job
reports holds exactly the staged model, and the target does not stay at a mixture.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from shared.errors import (
    ConflictError,
    DrainingError,
    InvalidInputError,
    LeaseLostError,
    LifecycleError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from shared.jobs import Job
from shared.lakefs.store import LakeFSStore
from shared.lakefs.types import Commit
from shared.ledger import BranchRecords, JobBranch, UnrecordedBranches
from shared.requests import UploadRequest
from shared.settings import LakeFSSettings
from shared.staged_models import StagedModel
from shared.staging import StagingArea
from workers.context import JobContext
from workers.lifecycle.publication import Counts, Directory
from workers.lifecycle.target import TargetedUpload, check_target, find_target

#: How often a job merges its model before it leaves the branch to other writers for a while.
ROUNDS = 20
#: Bounds of the random wait before another round: other writers must not stay in step with it.
FIRST_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 2.0

#: Time to check a merge that was sent, after a cancellation.
CHECK_SECONDS = 0.6
#: Time to mend a mixture that the merge made, after a cancellation.
MEND_SECONDS = 10.0

log = structlog.get_logger()


@dataclass(frozen=True)
class _Publication:
    """One run's work on the target, and what it needs."""

    job: Job
    request: TargetedUpload
    model: StagedModel
    directory: Directory
    counts: Counts

    @property
    def place(self) -> tuple[str, str, str]:
        """The repository, the target branch and the job's own branch."""
        return self.request.repo_name, self.request.branch, own_branch(self.job)


class Upload:
    """The work of an upload job."""

    def __init__(
        self,
        store: LakeFSStore,
        staging: StagingArea,
        settings: LakeFSSettings,
        restage: Callable[[JobContext, UploadRequest], None] | None = None,
        branches: BranchRecords | None = None,
    ) -> None:
        """``restage`` brings a model that a lost host had staged to this host's staging area.

        ``branches`` records the branches that jobs make, so that none is left behind.
        """
        self._store = store
        self._restage = restage
        self._branches = branches or UnrecordedBranches()
        self._staging = staging
        self._concurrent_files = settings.concurrent_files

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """Return the commit that holds the model, and how many bytes it took."""
        request = find_target(self._store, UploadRequest.model_validate(context.job.request))
        try:
            result = self._result(context, request)
        except LifecycleError as error:
            if not _may_run_again(context.job, error):
                self._clean(context.job, request)
            elif isinstance(error, LeaseLostError):
                self._record_again(context.job, request)
            raise
        self._clean(context.job, request)
        return result

    def _result(self, context: JobContext, request: TargetedUpload) -> dict[str, Any]:
        """Return what an earlier run committed, if that is exact; else publish the model."""
        earlier = self._found(context.job, request)
        if earlier is not None and self._is_exact(request, earlier):
            return _result(request, earlier.id, _counts(earlier))
        check_target(self._store, request, own_branch(context.job))
        try:
            return self._publish(context, request, earlier)
        except NotFoundError as error:
            if error.specific_code != "commit_not_found":
                raise
            # Another run of this job, thought dead, ended it and deleted its branch; or somebody
            # deleted the target. The next run finds out.
            raise UnavailableError(f"{error.detail}: it was deleted during the upload") from error

    def _publish(
        self, context: JobContext, request: TargetedUpload, earlier: Commit | None
    ) -> dict[str, Any]:
        """Do steps 2 to 6; ``earlier`` is the commit of a run that died before step 6."""
        if self._restage is not None:
            self._restage(context, request)
        with self._staging.lock(request.local_model_name, context.cancel, shared=True):
            model = self._staging.open(request.local_model_name, request.staged_id)
            if not model.files:
                raise InvalidInputError(f"{model.name!r} has no files", field="local_model_name")
            _check_revision(request, model)
            directory = Directory(self._store, request.repo_name, model, self._concurrent_files)
            counts = _counts(earlier) if earlier else directory.compare(request.branch, context)
            work = _Publication(context.job, request, model, directory, counts)
            repo, target, own = work.place
            self._branches.record(_recorded(work.job, request))
            self._store.ensure_branch(repo, own, source=target)
            try:
                self._prepare(context, work)
            except FileNotFoundError as error:
                raise _changed(model) from error
            self._check_unchanged(request, model)
            commit_id = self._commit_exactly(context, work)
            return _result(request, commit_id, counts)

    def _check_unchanged(self, request: TargetedUpload, model: StagedModel) -> None:
        """Refuse a model that a person changed while it was sent; a download is locked out."""
        if all(file.sha256 for file in model.files):
            return  # each file was compared with its digest on the way
        try:
            unchanged = self._staging.open(model.name, request.staged_id) == model
        except RequestError as error:
            raise _changed(model) from error
        if not unchanged:
            raise _changed(model)

    def _prepare(self, context: JobContext, work: _Publication) -> None:
        """Commit the model to the job's branch, on top of the target's head."""
        work.directory.settle(work.place[2], context)
        for turn in range(ROUNDS):
            if not self._is_behind(work):
                return
            _wait(context, turn)
            self._catch_up(work)
            work.directory.settle(work.place[2], context)

    def _commit_exactly(self, context: JobContext, work: _Publication) -> str:
        """Merge into the target until the merged commit holds exactly the model; return its id."""
        context.check()
        # A cancellation between the merge and its check would leave a mixture on the target. It
        # waits for the check, and longer where there is a mixture.
        with context.committing(CHECK_SECONDS) as checking:
            commit_id = _in_rounds(checking, lambda: (True, self._merged(work)))
        if commit_id is None:
            with context.committing(MEND_SECONDS) as mending:
                commit_id = _in_rounds(mending, lambda: self._mended(mending, work))
        if commit_id is None:
            repo, target, _ = work.place
            raise UnavailableError(
                f"others keep changing {work.model.name!r} on {target!r} of {repo!r}"
            )
        return commit_id

    def _merged(self, work: _Publication) -> str | None:
        """Merge the job's branch; return the commit if it holds exactly the model."""
        commit_id = self._merge(work)
        if work.directory.is_at(commit_id):
            return commit_id
        log.warning("merged commit holds other files", repo=work.place[0], commit=commit_id)
        return None

    def _mended(self, context: JobContext, work: _Publication) -> tuple[bool, str | None]:
        """Put the model on top of what others merged, and merge again; tell whether that is all."""
        self._catch_up(work)
        work.directory.settle(work.place[2], context)
        commit_id = self._merged(work)
        return commit_id is not None, commit_id

    def _merge(self, work: _Publication) -> str:
        """Return the commit of the target that should hold the model, merged if it has to be."""
        repo, target, own = work.place
        if not self._store.has_changes(repo, own, since=target):
            # Nothing was new; or a merge whose answer was lost has been made.
            return self._made(work) or self._store.commit_id(repo, target)
        try:
            return self._store.merge(
                repo,
                own,
                target,
                message=work.request.commit_message or _message(work.model),
                metadata=_metadata(work),
                squash=True,
            )
        except RequestError:
            # A run that was thought dead merged just now and deleted the branch.
            if made := self._made(work):
                return made
            check_target(self._store, work.request, own)  # it may have changed since
            raise

    def _is_behind(self, work: _Publication) -> bool:
        """Return whether another writer changed the model's directory on the target."""
        repo, target, own = work.place
        return self._store.has_changes(repo, target, since=own, path=work.model.name)

    def _catch_up(self, work: _Publication) -> None:
        """Merge the target into the job's branch, where the job's files win."""
        repo, target, own = work.place
        if self._store.has_changes(repo, target, since=own):
            message = f"Catch up with {target}"
            self._store.merge(repo, target, own, message=message, strategy="dest-wins")

    def _made(self, work: _Publication) -> str | None:
        """Return the id of the job's newest commit on the target if it holds exactly the model.

        Where it does not, others may have made the target exact since.
        """
        found = self._found(work.job, work.request)
        return found.id if found and work.directory.is_at(found.id) else None

    def _found(self, job: Job, request: TargetedUpload) -> Commit | None:
        """Return the job's newest commit on the target."""
        return self._store.find_commit(
            request.repo_name, request.branch, job.id, since=job.created_at
        )

    def _is_exact(self, request: TargetedUpload, commit: Commit) -> bool:
        """Return whether the directory at the job's commit is what the job put there."""
        path = request.local_model_name
        files = self._store.files(request.repo_name, commit.id, path, missing_ok=True)
        return commit.holds(path, files)

    def _clean(self, job: Job, request: TargetedUpload) -> None:
        """Delete the job's branch; if that fails the job has ended all the same."""
        try:
            self._store.delete_branch(request.repo_name, own_branch(job))
            self._branches.forget(_recorded(job, request))
        except LifecycleError as error:
            log.warning("job's branch not deleted", branch=own_branch(job), reason=error.detail)

    def _record_again(self, job: Job, request: UploadRequest) -> None:
        """Record the job's branch: this run may have made it after the run that ended the job."""
        with suppress(UnavailableError):
            self._branches.record(_recorded(job, request))


def own_branch(job: Job) -> str:
    """Return the name of the branch that only this job writes to."""
    return f"job-{job.id}"


def _recorded(job: Job, request: UploadRequest) -> JobBranch:
    return JobBranch(repo=request.repo_name, name=own_branch(job), job_id=job.id)


def _may_run_again(job: Job, error: LifecycleError) -> bool:
    """Return whether this job, or the worker that took it over, goes on from the job's branch."""
    if isinstance(error, DrainingError | LeaseLostError):
        return True
    if isinstance(error, UnavailableError) and error.service:
        return True  # it waits for the service; if that takes too long, the branch is swept
    return error.retryable and job.attempts < job.max_attempts


def _check_revision(request: UploadRequest, model: StagedModel) -> None:
    """Refuse a model that is staged at another commit than the one that was asked for."""
    if request.revision not in {None, model.revision}:
        raise NotFoundError(
            f"{model.name!r} is staged at {model.revision or 'no commit of a hub'}, "
            f"not at {request.revision}",
            field="revision",
            code="model_not_staged",
        )


def _changed(model: StagedModel) -> ConflictError:
    return ConflictError(
        f"{model.name!r} in the staging area was changed or replaced while it was uploaded. "
        "Upload it again when it is complete",
        field="local_model_name",
        code="staged_model_changed",
    )


def _message(model: StagedModel) -> str:
    revision = f" at {model.revision[:12]}" if model.revision else ""
    return f"Upload {model.repo_id or model.name}{revision}"


def _metadata(work: _Publication) -> dict[str, str]:
    """Return where the model came from, by which job, and what an answer that got lost needs."""
    model, counts = work.model, work.counts
    return {
        "job_id": work.job.id,
        "model_source": model.source or "local",
        "model_name": model.repo_id or model.name,
        "path": model.name,
        **({"revision": model.revision} if model.revision else {}),
        "files": str(counts.files),
        "manifest": work.directory.manifest,
        "uploaded_bytes": str(counts.uploaded_bytes),
        "skipped_bytes": str(counts.skipped_bytes),
    }


def _in_rounds(context: JobContext, attempt: Callable[[], tuple[bool, str | None]]) -> str | None:
    """Return what the first attempt that is done gives; None if none is in ``ROUNDS`` of them."""
    for turn in range(ROUNDS):
        try:
            is_done, commit_id = attempt()
            if is_done:
                return commit_id
        except UnavailableError as error:
            # Other writers, or a short outage. What a lost answer did, the next round finds. A
            # merge that may still be under way is not sent again: the next run looks for it.
            if turn == ROUNDS - 1 or error.retry_after_seconds:
                raise
        _wait(context, turn)
    return None


def _wait(context: JobContext, turn: int) -> None:
    """Wait for a random time that may be longer each turn; raise if the work must stop."""
    longest = min(FIRST_WAIT_SECONDS * 2**turn, LONGEST_WAIT_SECONDS)
    context.cancel.wait(random.uniform(0, longest))  # noqa: S311 - jitter
    context.check()


def _counts(commit: Commit) -> Counts:
    numbers = ("files", "uploaded_bytes", "skipped_bytes")
    return Counts(*(int(commit.metadata.get(number, "0")) for number in numbers))


def _result(request: TargetedUpload, commit_id: str, counts: Counts) -> dict[str, Any]:
    return {
        "commit_id": commit_id,
        "repo_name": request.repo_name,
        "branch": request.branch,
        "path": request.local_model_name,
        "files": counts.files,
        "uploaded_bytes": counts.uploaded_bytes,
        "skipped_bytes": counts.skipped_bytes,
    }
