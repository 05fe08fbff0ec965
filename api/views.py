"""What the front answers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import ErrorInfo
from shared.jobs import Job, JobKind, JobState, Outage, Progress
from shared.models import ModelVersion, StageChange


class Links(BaseModel):
    """Where to go on with a job."""

    self: str
    events: str
    cancel: str


class JobView(BaseModel):
    """A job as clients see it. An ``infer`` job also carries the fields of a synchronous answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": "019aac2e-7c52-7d10-a3b5-0d0c6e1f2a3b",
                    "kind": "download",
                    "state": "running",
                    "created_at": "2026-11-22T10:00:00Z",
                    "started_at": "2026-11-22T10:00:00.2Z",
                    "finished_at": None,
                    "attempt": 1,
                    "max_attempts": 3,
                    "queue": "downloads",
                    "position": None,
                    "worker": "cpu@host",
                    "parent_id": None,
                    "children": [],
                    "progress": {
                        "completed": 52428800,
                        "total": 209715200,
                        "unit": "bytes",
                        "message": "model.safetensors",
                    },
                    "waiting_for": None,
                    "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
                    "request": {
                        "model_source": "huggingface",
                        "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct",
                    },
                    "message": "running: model.safetensors",
                    "result": None,
                    "error": None,
                    "links": {
                        "self": "/jobs/019aac2e-7c52-7d10-a3b5-0d0c6e1f2a3b",
                        "events": "/jobs/019aac2e-7c52-7d10-a3b5-0d0c6e1f2a3b/events",
                        "cancel": "/jobs/019aac2e-7c52-7d10-a3b5-0d0c6e1f2a3b/cancel",
                    },
                }
            ]
        }
    )

    job_id: str
    kind: JobKind
    state: JobState
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    #: The run that is under way or was the last; 0 before the first.
    attempt: int
    max_attempts: int
    queue: str
    position: int | None = Field(
        None,
        description="Jobs before it in its queue, by priority and age; null unless it is queued. "
        "Submitters take turns, so its own may come sooner.",
    )
    worker: str | None
    parent_id: str | None
    children: list[str]
    progress: Progress | None
    waiting_for: Outage | None = Field(
        None,
        description="The service whose outage the job waits out, since when it has not answered, "
        "and why; null otherwise. The job fails after `LEDGER_OUTAGE_BUDGET_SECONDS`.",
    )
    model: str = Field(description="The model that the job is about; empty for a batch.")
    request: dict[str, Any] = Field(
        description="Of a request of more than 64 KB, only its short fields are shown."
    )
    #: The state in words.
    message: str
    result: dict[str, Any] | None
    error: ErrorInfo | None
    links: Links

    # Only of an ``infer`` job, so that a client of a synchronous endpoint finds its fields.
    success: bool | None = None
    task: str | None = None
    engine: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    #: Seconds from the start of the run to its end.
    processing_time: float | None = None
    #: Seconds since 1970 at the end of the job.
    timestamp: float | None = None

    @classmethod
    def of(cls, job: Job) -> "JobView":
        """Show a job."""
        path = f"/jobs/{job.id}"
        return cls(
            job_id=job.id,
            kind=job.kind,
            state=job.state,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            attempt=job.attempts,
            max_attempts=job.max_attempts,
            queue=job.queue,
            position=job.position,
            worker=job.owner,
            parent_id=job.parent_id,
            children=list(job.children),
            progress=job.progress,
            waiting_for=job.waiting_for,
            model=job.model,
            request=job.request,
            message=_message(job),
            result=job.result,
            error=job.error,
            links=Links(self=path, events=f"{path}/events", cancel=f"{path}/cancel"),
            **(_inference_fields(job) if job.kind is JobKind.INFER else {}),
        )


def job_response(
    view: "JobView | JobPage", status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with jobs; they were built from validated fields, so FastAPI need not check again."""
    if isinstance(view, JobPage):
        others = (place for place, job in enumerate(view.jobs) if job.kind is not JobKind.INFER)
        content = view.model_dump_json(exclude={"jobs": dict.fromkeys(others, _INFERENCE_FIELDS)})
    elif view.kind is JobKind.INFER:
        content = view.model_dump_json()
    else:
        content = view.model_dump_json(exclude=_INFERENCE_FIELDS)
    return Response(content, status, headers=headers, media_type="application/json")


_INFERENCE_FIELDS = {
    "success",
    "task",
    "engine",
    "model_name",
    "model_version",
    "processing_time",
    "timestamp",
}


def _inference_fields(job: Job) -> dict[str, Any]:
    metadata = (job.result or {}).get("metadata", {})
    ended = job.finished_at
    return {
        "success": job.state is JobState.SUCCEEDED if job.state.terminal else None,
        # A listing leaves out a long request.
        "task": job.request.get("task"),
        "engine": job.request.get("engine"),
        "model_name": job.model,
        "model_version": metadata.get("version"),
        "processing_time": (
            (ended - job.started_at).total_seconds() if ended and job.started_at else None
        ),
        "timestamp": ended.timestamp() if ended else None,
    }


def _message(job: Job) -> str:
    if job.cancel_requested and not job.state.terminal:
        return "stopping, as asked"
    if job.waiting_for is not None and not job.state.terminal:
        outage = job.waiting_for
        since = f"{outage.since:%H:%M:%S} UTC"
        return f"waits for {outage.service}, away since {since}: {outage.reason}"
    if job.error is not None:
        again = "will be tried again: " if job.state is JobState.QUEUED else ""
        return f"{again}{job.error.detail}"
    if job.progress is not None and job.progress.message and not job.state.terminal:
        return f"{job.state.value}: {job.progress.message}"
    return job.state.value


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    #: Give it as ``cursor`` for the next page; null on the last one.
    next_cursor: str | None


class Message(BaseModel):
    """A sentence for a person."""

    message: str


class VersionView(BaseModel):
    """A version of a registered model as clients see it."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    version: str
    stage: str
    task: str
    engine: str
    aliases: list[str]
    description: str
    #: Where the model's files come from; null for engines that keep their own.
    source: str | None
    model_params: float | None = Field(description="Billions of parameters.")
    priority: bool
    created_at: datetime
    updated_at: datetime
    tags: dict[str, str]
    #: How it came to its stage, the oldest change first.
    history: list[StageChange]

    @classmethod
    def of(cls, version: ModelVersion) -> "VersionView":
        """Show a version."""
        params = version.tags.get("model_params")
        return cls(
            name=version.name,
            version=version.version,
            stage=version.stage,
            task=version.task,
            engine=version.engine,
            aliases=list(version.aliases),
            description=version.description,
            source=version.location.uri if version.location else None,
            model_params=float(params) if params else None,
            priority=version.has_priority,
            created_at=datetime.fromtimestamp(version.created_at_ms / 1000, UTC),
            updated_at=datetime.fromtimestamp(version.updated_at_ms / 1000, UTC),
            tags=version.tags,
            history=list(version.history),
        )


class ComponentHealth(BaseModel):
    """One component as the front sees it."""

    status: Literal["up", "down"]
    latency_ms: float
    detail: str | None = None
    affected_models: list[str] = Field(
        default=[], description="Models in production that cannot answer without it."
    )


class ModelsHealth(BaseModel):
    """The stores that the lifecycle needs."""

    status: Literal["ok", "degraded"]
    components: dict[str, ComponentHealth] = Field(
        examples=[{"redis": {"status": "up", "latency_ms": 0.4}}]
    )
