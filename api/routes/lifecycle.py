"""Submits of lifecycle jobs: download, upload, register."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from fastapi.concurrency import run_in_threadpool

from api.documented import JOB_ANSWERS
from api.served import check_served
from api.services import Provided
from api.waiting import Waiting
from shared.jobs import JobKind
from shared.ledger import NewJob
from shared.queue import DOWNLOADS, REGISTRATIONS, UPLOADS, uploads_of
from shared.requests import (
    BatchDownloadRequest,
    DownloadRequest,
    JobRequest,
    RegisterOllamaRequest,
    RegisterRequest,
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
    job = _download_job(request, services.settings.ledger.max_attempts)
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
    max_attempts = services.settings.ledger.max_attempts
    items = {item.model_dump_json(): item for item in request.downloads}
    children = [_download_job(item, max_attempts) for item in items.values()]
    parent = NewJob(
        kind=JobKind.BATCH_DOWNLOAD,
        request=_dump(request),
        queue="",
        model="",
        max_attempts=1,
    )
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
    job = NewJob(
        kind=JobKind.UPLOAD,
        request=_dump(request),
        queue=uploads_of(host) if host else UPLOADS,
        model=request.local_model_name,
        max_attempts=services.settings.ledger.max_attempts,
    )
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
    await run_in_threadpool(check_served, services.presence, request.task, request.engine)
    job = NewJob(
        kind=JobKind.REGISTER,
        request=_dump(request),
        queue=REGISTRATIONS,
        model=request.registered_name,
        max_attempts=services.settings.ledger.max_attempts,
    )
    return await services.submission.submit(job, wait)


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
    job = NewJob(
        kind=JobKind.REGISTER,
        request=_dump(request),
        queue=REGISTRATIONS,
        model=request.registered_name or request.local_model_name,
        max_attempts=services.settings.ledger.max_attempts,
    )
    return await services.submission.submit(job, wait)


def _download_job(request: DownloadRequest, max_attempts: int) -> NewJob:
    return NewJob(
        kind=JobKind.DOWNLOAD,
        request=_dump(request),
        queue=DOWNLOADS,
        model=request.model_name,
        max_attempts=max_attempts,
    )


def _dump(request: JobRequest) -> dict[str, Any]:
    return request.model_dump(mode="json", exclude_none=True)
