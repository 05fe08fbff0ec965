"""Imports a model: download, upload, register, try it, give it its stage.

An import holds no worker while a step runs. It is claimed for an instant between two steps: it
reads from its children what is done, makes the child that does the next step, and waits in the
ledger for that child's end. So it goes on from what is written down, whoever runs it; a step that
succeeded is not done again, also when a failed import is retried.
"""

from typing import Any, Protocol

from shared.import_request import ImportRequest
from shared.jobs import Job, JobKind
from shared.ledger import NewJob
from shared.registry import Cause, ModelRegistry
from workers.context import JobContext
from workers.lifecycle.import_plan import Results, next_step, steps_of
from workers.lifecycle.import_steps import Steps


class Jobs(Protocol):
    """The jobs that there are: the ledger."""

    def get(self, job_id: str) -> Job:
        """Return a job."""


class Import:
    """The work of an import job."""

    def __init__(self, jobs: Jobs, steps: Steps, registry: ModelRegistry) -> None:
        self._jobs = jobs
        self._steps = steps
        self._registry = registry

    def __call__(self, context: JobContext) -> dict[str, Any] | NewJob | Job:
        """Return the child to wait for; the result when all steps are done."""
        job, request = context.job, ImportRequest.model_validate(context.job.request)
        step, results = next_step(job, request, [self._jobs.get(each) for each in job.children])
        if isinstance(step, Job):
            return step
        if step is not None:
            _report(context, request, results, step.value)
            return self._steps.child(job, request, step, results)
        stage = self._stage(context, request, results[JobKind.REGISTER])
        _report(context, request, results, "done")
        return _result(request, results, stage)

    def _stage(
        self, context: JobContext, request: ImportRequest, registered: dict[str, Any]
    ) -> str:
        """Give the version its stage, once all else has gone well; return what it has."""
        if request.stage is None:
            return str(registered["stage"])
        context.check()
        return self._registry.set_stage(
            registered["name"],
            registered["version"],
            request.stage,
            archive_existing=request.archive_existing_versions,
            cause=Cause("register", context.job.id, context.job.submitter),
        ).stage


def _report(context: JobContext, request: ImportRequest, results: Results, message: str) -> None:
    """Say which bytes have been moved when a step begins; download and upload move the same."""
    moves = {JobKind.DOWNLOAD, JobKind.UPLOAD}
    size_bytes = results.get(JobKind.DOWNLOAD, {}).get("size_bytes")
    total = None if size_bytes is None else size_bytes * len(moves & set(steps_of(request)))
    context.report((size_bytes or 0) * len(moves & set(results)), total, "bytes", message)


def _result(request: ImportRequest, results: Results, stage: str) -> dict[str, Any]:
    downloaded, registered = results[JobKind.DOWNLOAD], results[JobKind.REGISTER]
    uploaded = results.get(JobKind.UPLOAD, {})
    return {
        "name": registered["name"],
        "version": registered["version"],
        "stage": stage,
        # Ollama keeps its models itself: they are in no commit.
        "commit_id": uploaded.get("commit_id"),
        "repo_name": uploaded.get("repo_name"),
        "path": uploaded.get("path"),
        "revision": downloaded["revision"],
        "size_bytes": downloaded["size_bytes"],
        **({"smoke": results[JobKind.INFER]} if request.smoke_test else {}),
        **({"note": registered["note"]} if "note" in registered else {}),
    }
