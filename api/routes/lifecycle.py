"""Submits of lifecycle jobs: download, upload, register."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from fastapi.concurrency import run_in_threadpool

from api.callers import Caller, Calling
from api.documented import JOB_ANSWERS
from api.own_files import check_files
from api.servable import check_served
from api.services import Provided, Services
from api.submission import Prepare, check_timeout
from api.waiting import Waiting
from shared.import_request import ImportRequest
from shared.jobs import JobKind
from shared.ledger import NewJob
from shared.queue import DOWNLOADS, REGISTRATIONS, UPLOADS, uploads_of
from shared.requests import (
    BatchDownloadRequest,
    DownloadRequest,
    JobRequest,
    RegisterOllamaRequest,
    RegisterRequest,
    TimedRequest,
    UploadRequest,
)

router = APIRouter(prefix="/models", tags=["lifecycle"])


def _example(**value: Any) -> Any:
    return Body(openapi_examples={"example": {"value": value}})


SMOL = {"model_source": "huggingface", "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct"}


@router.post("/download", summary="Download a model", responses=JOB_ANSWERS, status_code=202)
async def download(
    services: Provided, wait: Waiting, request: Annotated[DownloadRequest, _example(**SMOL)]
) -> Response:
    """Fetch a model from where it is published into the staging area."""
    job = _job(services, JobKind.DOWNLOAD, request, DOWNLOADS, request.model_name)
    return await services.submission.submit(job, wait)


@router.post(
    "/batch_download", summary="Download several models", responses=JOB_ANSWERS, status_code=202
)
async def batch_download(
    services: Provided,
    wait: Waiting,
    request: Annotated[BatchDownloadRequest, _example(downloads=[SMOL])],
) -> Response:
    """Queue a download for each item, duplicates joined, under one parent job."""
    start = {"start_within_seconds": request.start_within_seconds}
    downloads = [
        item if item.start_within_seconds else item.model_copy(update=start)
        for item in request.downloads
    ]
    items = {item.model_dump_json(): (place, item) for place, item in enumerate(downloads)}
    children = [
        _job(services, JobKind.DOWNLOAD, item, DOWNLOADS, item.model_name, f"downloads.{place}.")
        for place, item in items.values()
    ]
    # It runs as its children do: it has no queue, and no attempts beyond the one.
    parent = _job(services, JobKind.BATCH_DOWNLOAD, request, "", "")
    parent.max_attempts = 1
    return await services.submission.submit(parent, wait, children)


@router.post(
    "/upload_to_lakefs",
    summary="Commit a downloaded model to lakeFS",
    responses=JOB_ANSWERS,
    status_code=202,
)
async def upload(
    services: Provided,
    wait: Waiting,
    request: Annotated[
        UploadRequest,
        _example(repo_name="smollm", local_model_name="HuggingFaceTB_SmolLM2-135M-Instruct"),
    ],
) -> Response:
    """Upload a model of the staging area and commit it; the repository is created if missing."""
    host = await run_in_threadpool(services.placement.host_of, request.local_model_name)
    queue = uploads_of(host) if host else UPLOADS
    job = _job(services, JobKind.UPLOAD, request, queue, request.local_model_name)
    return await services.submission.submit(job, wait)


@router.post(
    "/register_from_lakefs",
    summary="Register a lakeFS commit in MLflow",
    responses=JOB_ANSWERS,
    status_code=202,
)
async def register(
    services: Provided,
    wait: Waiting,
    request: Annotated[
        RegisterRequest,
        _example(
            registered_name="smollm",
            task="text-generation",
            lakefs_repo="smollm",
            commit_id="7f3c1d9a5b8e4f60",
            stage="production",
        ),
    ],
) -> Response:
    """Make a model in a lakeFS commit a version in MLflow, and give it a stage if asked."""
    check = partial(check_served, services.presence, request.task, request.engine)
    job = _job(services, JobKind.REGISTER, request, REGISTRATIONS, request.registered_name)
    return await services.submission.submit(job, wait, prepare=_checked_by(check))


@router.post(
    "/register_ollama",
    summary="Register a model of the Ollama server in MLflow",
    responses=JOB_ANSWERS,
    status_code=202,
)
async def register_ollama(
    services: Provided,
    wait: Waiting,
    request: Annotated[
        RegisterOllamaRequest, _example(local_model_name="qwen3:0.6b", stage="production")
    ],
) -> Response:
    """Make a model that Ollama has a version in MLflow, and give it a stage if asked."""
    name = request.registered_name or request.local_model_name
    job = _job(services, JobKind.REGISTER, request, REGISTRATIONS, name)
    return await services.submission.submit(job, wait)


@router.post(
    "/import",
    summary="Take a model all the way to a stage",
    responses=JOB_ANSWERS,
    status_code=202,
)
async def import_model(
    services: Provided,
    caller: Calling,
    wait: Waiting,
    request: Annotated[
        ImportRequest,
        Body(
            openapi_examples={
                "huggingface": {
                    "value": {
                        **SMOL,
                        "registered_name": "smollm",
                        "task": "text-generation",
                        "stage": "production",
                        "archive_existing_versions": True,
                        "smoke_test": {
                            "data": {"inputs": "The capital of France is"},
                            "options": {"max_new_tokens": 8, "do_sample": False},
                            "expect_contains": "Paris",
                        },
                    }
                },
                "ollama": {
                    "value": {
                        "model_source": "ollama",
                        "model_name": "qwen3:0.6b",
                        "registered_name": "qwen",
                        "task": "text-generation",
                        "stage": "staging",
                    }
                },
            }
        ),
    ],
) -> Response:
    """Download, upload, register, try and stage a model in one job, with a child for each step.

    The version gets its stage last, after its smoke test. A retried import goes on at the step
    that failed.
    """
    check = partial(_check_import, services, caller, request)
    # Between its children it only looks at what is done: work as light as a registration.
    job = _job(services, JobKind.IMPORT, request, REGISTRATIONS, request.model_name)
    return await services.submission.submit(job, wait, prepare=_checked_by(check))


def _checked_by(check: Callable[[], None]) -> Prepare:
    """Return what prepares a job by a check that takes a thread."""

    async def prepare(_: NewJob) -> None:
        await run_in_threadpool(check)

    return prepare


def _check_import(services: Services, caller: Caller, request: ImportRequest) -> None:
    check_served(services.presence, request.task, request.engine)
    if request.smoke_test is not None:
        check_files(services.files, caller.submitter, request.smoke_test.data)


def _job(
    services: Services, kind: JobKind, request: JobRequest, queue: str, model: str, field: str = ""
) -> NewJob:
    """Return the job of a request; ``field`` is where in the body it is, with a dot at its end."""
    check_timeout(services.settings.ledger, request, field)
    return NewJob(
        kind=kind,
        request=request.model_dump(mode="json", exclude_none=True),
        queue=queue,
        model=model,
        max_attempts=services.settings.ledger.max_attempts,
        lifetime_seconds=request.timeout_seconds if isinstance(request, TimedRequest) else None,
        start_within_seconds=request.start_within_seconds,
    )
