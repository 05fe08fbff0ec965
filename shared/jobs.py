"""What a job is: its kinds, its states and its record."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from shared.errors import ErrorInfo


class JobKind(StrEnum):
    """What a job does."""

    DOWNLOAD = "download"
    UPLOAD = "upload"
    REGISTER = "register"
    INFER = "infer"
    IMPORT = "import"
    BATCH_DOWNLOAD = "batch_download"


class JobState(StrEnum):
    """Where a job is: queued → running → one of three ends; running → queued on a retry."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self in _TERMINAL


_TERMINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class Progress(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(frozen=True)

    #: Units done so far.
    completed: int = 0
    #: Units in all; None while unknown.
    total: int | None = None
    #: What is counted: bytes, files, tokens, jobs.
    unit: str = "bytes"
    #: What is worked on, a file's name for instance.
    message: str = ""


class Outage(BaseModel):
    """A service that a job waits for, because it does not answer."""

    model_config = ConfigDict(frozen=True)

    #: lakeFS, MLflow, hub, Ollama, Redis, object store or file store.
    service: str
    #: When the job first missed it, without having made progress since.
    since: datetime
    #: What went wrong last.
    reason: str


class Job(BaseModel):
    """A job as the ledger knows it at one moment."""

    model_config = ConfigDict(frozen=True)

    #: UUID version 7; also the id of the Celery task.
    id: str
    kind: JobKind
    state: JobState
    #: The client's validated request.
    request: dict[str, Any]
    #: The model that the job is about, as listings and Flower show it.
    model: str = ""
    queue: str
    #: The id of the API key that submitted it; empty where no keys are in use.
    submitter: str = ""
    #: Jobs with equal affinities need the same model to be warm.
    affinity: str = ""
    #: 0 is the most urgent, 9 the least.
    priority: int
    created_at: datetime
    #: Not claimed before this time: the backoff of a retry.
    available_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    #: When the job fails, whatever it is doing; None for no limit.
    deadline: datetime | None = None
    #: Runs so far, drains not counted.
    attempts: int = 0
    max_attempts: int
    #: Runs that ended with the loss of their worker.
    crashes: int = 0
    #: The worker that runs the job, or ran it last.
    owner: str | None = None
    #: Counts the claims; a write with an older fence is refused.
    fence: int = 0
    #: Of the last claim; after a failover of Redis, two claims may have the same fence.
    nonce: str = ""
    lease_until: datetime | None = None
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    #: The final error, or the last one while the job waits for another attempt.
    error: ErrorInfo | None = None
    parent_id: str | None = None
    children: tuple[str, ...] = ()
    #: The child whose end it waits for, or that just let it go on.
    awaits: str | None = None
    #: The service whose outage it waits out; None once it has made progress again or has ended.
    waiting_for: Outage | None = None
    cancel_requested: bool = False
    #: Jobs before it in its queue, by priority and age; None unless it is queued. Where others
    #: submit too, its turn may come sooner.
    position: int | None = None
    #: The number of stage transitions before the job was claimed; None outside of a run.
    epoch: int | None = None
