"""The child job that does a step of an import, asked for what the steps before it gave."""

from typing import Any

from shared.import_request import ImportRequest
from shared.jobs import Job, JobKind
from shared.ledger import NewJob, Placement
from shared.queue import DOWNLOADS, REGISTRATIONS, UPLOADS, InferenceQueues, uploads_of
from shared.requests import (
    DownloadRequest,
    InferRequest,
    JobRequest,
    RegisterOllamaRequest,
    RegisterRequest,
    TimedRequest,
    UploadRequest,
)
from workers.lifecycle.import_plan import Results


class Steps:
    """Makes the children of imports."""

    def __init__(
        self, placement: Placement, inference_queues: InferenceQueues, infer_seconds: float
    ) -> None:
        self._placement = placement
        self._inference_queues = inference_queues
        self._infer_seconds = infer_seconds

    def child(self, parent: Job, request: ImportRequest, step: JobKind, so_far: Results) -> NewJob:
        """Return the job that does a step, with what the steps before it have given."""
        match step:
            case JobKind.DOWNLOAD:
                return _child(parent, step, _download(request), DOWNLOADS, _part(request, 0))
            case JobKind.UPLOAD:
                downloaded = so_far[JobKind.DOWNLOAD]
                upload = _upload(request, downloaded)
                # Another download of the model may have been staged on another host since.
                host = downloaded.get("host") or self._placement.host_of(upload.local_model_name)
                queue = uploads_of(host) if host else UPLOADS
                return _child(parent, step, upload, queue, _part(request, 1))
            case JobKind.REGISTER:
                return _child(parent, step, _registration(request, so_far), REGISTRATIONS)
            case _:
                infer = _smoke_test(request, so_far[JobKind.REGISTER])
                queue = self._inference_queues.of(infer.engine)
                return _child(parent, step, infer, queue, most_seconds=self._infer_seconds)


def _child(
    parent: Job,
    step: JobKind,
    request: JobRequest,
    queue: str,
    part: tuple[int, int] | None = None,
    most_seconds: float | None = None,
) -> NewJob:
    return NewJob(
        kind=step,
        request=request.model_dump(mode="json", exclude_none=True),
        queue=queue,
        model=parent.model,
        max_attempts=parent.max_attempts,
        priority=parent.priority,
        submitter=parent.submitter,
        lifetime_seconds=most_seconds,
        part=part,
    )


def _part(request: ImportRequest, number: int) -> tuple[int, int]:
    """Say that download and upload move the same bytes, where both are needed."""
    return number, 1 if request.from_ollama else 2


def _download(request: ImportRequest) -> DownloadRequest:
    # How long the import may take is kept by its children's deadlines.
    fields = set(DownloadRequest.model_fields) - set(TimedRequest.model_fields)
    return DownloadRequest.model_validate(request.model_dump(include=fields))


def _upload(request: ImportRequest, downloaded: dict[str, Any]) -> UploadRequest:
    return UploadRequest(
        repo_name=request.repository,
        local_model_name=downloaded["local_model_name"],
        branch=request.branch,
        revision=downloaded["revision"],
        staged_id=downloaded.get("staged_id"),
    )


def _registration(request: ImportRequest, so_far: Results) -> JobRequest:
    """Return how the version is registered; it gets its stage last, when all has gone well."""
    shared = request.model_dump(
        include={"registered_name", "model_params", "version_description", "set_priority_to_one"}
    )
    if request.from_ollama:
        name = so_far[JobKind.DOWNLOAD]["local_model_name"]
        return RegisterOllamaRequest(
            local_model_name=name, smoke_test=request.stage == "production", **shared
        )
    uploaded = so_far[JobKind.UPLOAD]
    return RegisterRequest(
        task=request.task,
        engine=request.engine,
        lakefs_repo=uploaded["repo_name"],
        commit_id=uploaded["commit_id"],
        path=uploaded["path"],
        **shared,
    )


def _smoke_test(request: ImportRequest, registered: dict[str, Any]) -> InferRequest:
    assert request.smoke_test is not None  # noqa: S101 - there is no such step without
    return InferRequest(
        task=request.task,
        engine=request.engine,
        model_name=registered["name"],
        version=registered["version"],
        data=request.smoke_test.data,
        options=request.smoke_test.options,
    )
