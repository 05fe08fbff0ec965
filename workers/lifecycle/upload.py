"""Commits a model of the staging area to lakeFS.

Each step may be done again after a crash anywhere, and the target branch gets one commit:

1. look for the job's commit on the target by its metadata: an earlier run may have made it;
2. a branch of the job's own, from the target's head, reused if it is there;
3. make the model's directory there what is staged: upload what differs, delete what is left over,
   commit;
4. if another job put a model in the same place meanwhile, merge the target into the job's branch
   and repeat 3, so that the two do not mix;
5. one squash merge into the target, with the metadata that 1 looks for.

Only 5 is seen on the target. The job's branch goes when the job ends, in whatever way, and stays
for the next run where there is one.
"""

from collections.abc import Callable
from typing import Any

import structlog

from shared.errors import (
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
from shared.requests import UploadRequest
from shared.settings import LakeFSSettings
from shared.staged_models import StagedModel
from shared.staging import StagingArea
from workers.context import JobContext
from workers.lifecycle.publication import Counts, Directory

#: Others may change the model's directory this often while the job prepares its merge.
CATCH_UPS = 5

log = structlog.get_logger()


class Upload:
    """The work of an upload job."""

    def __init__(
        self,
        store: LakeFSStore,
        staging: StagingArea,
        settings: LakeFSSettings,
        restage: Callable[[JobContext, UploadRequest], None] | None = None,
    ) -> None:
        """Take what brings a model to this host's staging area, if it was in a lost host's."""
        self._store = store
        self._restage = restage
        self._staging = staging
        self._concurrent_files = settings.concurrent_files

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """Return the commit that has the model, and how many bytes it took."""
        request = UploadRequest.model_validate(context.job.request)
        self._store.ensure_repository(request.repo_name)
        self._store.ensure_branch(request.repo_name, request.branch)
        try:
            result = self._found(context.job, request) or self._publish(context, request)
        except LifecycleError as error:
            if not _may_run_again(context.job, error):
                self._clean(context.job, request)
            raise
        self._clean(context.job, request)
        return result

    def _publish(self, context: JobContext, request: UploadRequest) -> dict[str, Any]:
        """Do steps 2 to 5."""
        repo, target, own = request.repo_name, request.branch, own_branch(context.job)
        if self._restage is not None:
            self._restage(context, request)
        with self._staging.lock(request.local_model_name, context.token, shared=True):
            model = self._staging.open(request.local_model_name)
            if not model.files:
                raise InvalidInputError(f"{model.name!r} has no files", field="local_model_name")
            _check_revision(request, model)
            self._store.ensure_branch(repo, own, source=target)
            counts = self._prepare(context, request, model)
        context.check()
        if not self._store.has_changes(repo, own, since=target):
            # Nothing was new; or a merge whose answer got lost came through only now.
            head = self._store.commit_id(repo, target)
            return self._found(context.job, request) or _result(request, head, counts)
        try:
            commit_id = self._store.merge(
                repo,
                own,
                target,
                message=request.commit_message or _message(model),
                metadata=_metadata(context.job, model, counts),
                squash=True,
            )
        except RequestError:
            # A run that was thought dead merged just now and took the branch away.
            if result := self._found(context.job, request):
                return result
            raise
        return _result(request, commit_id, counts)

    def _prepare(self, context: JobContext, request: UploadRequest, model: StagedModel) -> Counts:
        """Commit the model to the job's branch, on top of the target's head."""
        repo, target, own = request.repo_name, request.branch, own_branch(context.job)
        directory = Directory(self._store, repo, model, context, self._concurrent_files)
        counts = directory.compare(target)
        for _ in range(CATCH_UPS):
            directory.settle(own)
            if not self._store.has_changes(repo, target, since=own, path=model.name):
                return counts
            self._store.merge(
                repo, target, own, message=f"Catch up with {target}", strategy="dest-wins"
            )
        raise UnavailableError(f"others keep changing {model.name!r} on {target!r} of {repo!r}")

    def _found(self, job: Job, request: UploadRequest) -> dict[str, Any] | None:
        """Return the result of the job's commit, if it is on the target."""
        commit = self._store.find_commit(
            request.repo_name, request.branch, job.id, since=job.created_at
        )
        return _result(request, commit.id, _counts(commit)) if commit else None

    def _clean(self, job: Job, request: UploadRequest) -> None:
        """Delete the job's branch; if that fails the job has ended all the same."""
        try:
            self._store.delete_branch(request.repo_name, own_branch(job))
        except LifecycleError as error:
            log.warning("job's branch not deleted", branch=own_branch(job), reason=error.detail)


def own_branch(job: Job) -> str:
    """Return the name of the branch that only this job writes to."""
    return f"job-{job.id}"


def _may_run_again(job: Job, error: LifecycleError) -> bool:
    """Return whether this job, or the worker that took it over, goes on from the job's branch."""
    if isinstance(error, DrainingError | LeaseLostError):
        return True
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


def _message(model: StagedModel) -> str:
    revision = f" at {model.revision[:12]}" if model.revision else ""
    return f"Upload {model.repo_id or model.name}{revision}"


def _metadata(job: Job, model: StagedModel, counts: Counts) -> dict[str, str]:
    """Return where the model came from, by which job, and what an answer that got lost needs."""
    return {
        "job_id": job.id,
        "model_source": model.source or "local",
        "model_name": model.repo_id or model.name,
        "path": model.name,
        **({"revision": model.revision} if model.revision else {}),
        "files": str(counts.files),
        "uploaded_bytes": str(counts.uploaded_bytes),
        "skipped_bytes": str(counts.skipped_bytes),
    }


def _counts(commit: Commit) -> Counts:
    numbers = ("files", "uploaded_bytes", "skipped_bytes")
    return Counts(*(int(commit.metadata.get(number, "0")) for number in numbers))


def _result(request: UploadRequest, commit_id: str, counts: Counts) -> dict[str, Any]:
    return {
        "commit_id": commit_id,
        "repo_name": request.repo_name,
        "branch": request.branch,
        "path": request.local_model_name,
        "files": counts.files,
        "uploaded_bytes": counts.uploaded_bytes,
        "skipped_bytes": counts.skipped_bytes,
    }
