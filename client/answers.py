"""What the API answers, as the client hands it on; what a newer API adds is kept as it is."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import ErrorInfo, FieldError
from shared.jobs import JobKind, JobState, Outage, Progress

__all__ = [
    "ErrorInfo",
    "Event",
    "Job",
    "JobPage",
    "JobState",
    "Message",
    "Outage",
    "Problem",
    "Progress",
    "Repository",
    "StoredFile",
    "Version",
]


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    def document(self) -> dict[str, Any]:
        """Return the answer as the API gave it."""
        return self.model_dump(mode="json", exclude_unset=True)


class Problem(Answer):
    """A problem document (RFC 9457)."""

    title: str
    status: int
    detail: str
    #: Stable, for programs.
    code: str
    #: The fields of the request that are wrong.
    errors: tuple[FieldError, ...] = ()
    job_id: str | None = None


class Job(Answer):
    """A job as it was when the API answered."""

    job_id: str
    kind: JobKind
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    #: The run that is under way or was the last; 0 before the first.
    attempt: int = 0
    max_attempts: int = 1
    queue: str = ""
    worker: str | None = None
    parent_id: str | None = None
    children: tuple[str, ...] = ()
    progress: Progress | None = None
    #: The service whose outage the job waits out.
    waiting_for: Outage | None = None
    #: The model that the job is about; empty for a batch.
    model: str = ""
    request: dict[str, Any] = Field(default_factory=dict)
    #: The state in words.
    message: str = ""
    result: dict[str, Any] | None = None
    error: ErrorInfo | None = None


class JobPage(Answer):
    """A page of jobs, newest first."""

    jobs: tuple[Job, ...]
    #: Give it as ``cursor`` for the next page; None on the last one.
    next_cursor: str | None = None


class Event(BaseModel):
    """One event of a job."""

    model_config = ConfigDict(frozen=True)

    id: str
    #: ``state``, ``progress``, ``thinking``, ``token``, ``restart`` (the text so far is void: a new
    #: attempt generates it again from the beginning) or ``done``.
    name: str
    data: dict[str, Any]

    @property
    def text(self) -> str:
        """The piece of generated text that a ``token`` event brings; else empty."""
        return str(self.data.get("text", "")) if self.name == "token" else ""

    @property
    def thought(self) -> str:
        """The piece of a model's thoughts that a ``thinking`` event brings; else empty."""
        return str(self.data.get("text", "")) if self.name == "thinking" else ""


class Version(Answer):
    """A version of a registered model."""

    name: str
    version: str
    stage: str
    task: str
    engine: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    source: str | None = None
    #: Billions of parameters.
    model_params: float | None = None
    priority: bool = False
    created_at: datetime
    updated_at: datetime
    tags: dict[str, str] = Field(default_factory=dict)


class LocalModel(Answer):
    """A model of the staging area, or of the Ollama server."""

    name: str
    size: str
    modified: str
    size_bytes: int
    modified_at: datetime
    #: Where it was staged; nothing for a model of Ollama.
    host: str = ""


class Repository(Answer):
    """A repository of lakeFS."""

    name: str


class StoredFile(Answer):
    """An uploaded file."""

    file_id: str
    size_bytes: int
    sha256: str
    media_type: str


class Message(Answer):
    """A sentence for a person."""

    message: str


class ComponentHealth(Answer):
    """One component as the API sees it."""

    status: str
    latency_ms: float
    detail: str | None = None
    #: Models in production that cannot answer without it.
    affected_models: tuple[str, ...] = ()


class ModelsHealth(Answer):
    """The stores and services that the lifecycle needs."""

    status: str
    components: dict[str, ComponentHealth]
