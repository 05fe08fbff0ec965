"""Every error of the platform.

LifecycleError
├── RequestError                   the request cannot be served; trying again does not help
│   ├── InvalidInputError          a field is wrong
│   │   ├── UnsupportedTaskError   the model cannot do the task
│   │   └── UnsafeModelError       pickle weights or remote code
│   ├── DeniedError                a store or a hub refuses the platform's credentials
│   ├── UnauthenticatedError       the caller shows no API key, or none that is good
│   ├── ForbiddenError             the caller's API key may not do this
│   ├── NotFoundError              what was named does not exist
│   ├── ConflictError              the request does not fit the present state
│   │   ├── IdempotencyConflictError
│   │   └── NoServableVersionError
│   ├── DigestMismatchError        bytes differ from the published digest, twice
│   ├── InsufficientDiskError      the disk cannot take what was asked for
│   ├── ModelLoadError             the model's files are incomplete or do not fit each other
│   └── CrashedError               the job took its worker down more often than is allowed
├── TransientError                 may pass; the runner tries again with backoff
│   ├── UnavailableError           a store or a service does not answer
│   │   └── HostLostError          only a host that is gone could do it
│   ├── RateLimitedError           the caller calls too often
│   ├── QueueFullError             too much waits already; nothing was accepted
│   └── OutOfMemoryError           no memory for the model or the request now
├── BatchIncompleteError           some children of a batch failed
├── StepFailedError                a step of an import failed
├── SmokeTestFailedError           a new version did not pass its smoke test
├── InternalError                  a defect of ours
└── Interruption                   the work was told to stop
    ├── CancelledError             by the client
    ├── DeadlineExceededError      by the clock
    │   └── StartDeadlineExceededError  before it began
    ├── LeaseLostError             another worker owns the job now
    └── DrainingError              the worker is shutting down

HTTP status codes belong to ``api/errors.py``. Between processes an error travels as ``ErrorInfo``.
"""

from collections.abc import Iterator
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from shared.redaction import redacted


class FieldError(BaseModel):
    """One field of a request and what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    field: str
    detail: str


class ErrorInfo(BaseModel):
    """An error as data: what the ledger keeps and what a problem document shows."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str
    retryable: bool = False
    errors: tuple[FieldError, ...] = ()
    #: The code of the error's class, where ``code`` says it more exactly.
    category: str = ""


class LifecycleError(Exception):
    """The root of all errors that the platform raises on purpose."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    #: When another try makes sense, where that is known.
    retry_after_seconds: int | None = None

    def __init__(self, detail: str, *, field: str | None = None, code: str | None = None) -> None:
        """Say what went wrong in one sentence, with names; ``code`` refines the class's.

        Services may repeat in their errors what they were sent: the credentials are taken out.
        """
        detail = redacted(detail)
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.specific_code = code or self.code

    def info(self) -> ErrorInfo:
        """Return this error as data."""
        errors = (FieldError(field=self.field, detail=self.detail),) if self.field else ()
        return ErrorInfo(
            code=self.specific_code,
            detail=self.detail,
            retryable=self.retryable,
            errors=errors,
            category=self.code,
        )

    @classmethod
    def family(cls) -> Iterator[type[Self]]:
        """Yield this class and all that derive from it."""
        yield cls
        for child in cls.__subclasses__():
            yield from child.family()


class BatchIncompleteError(LifecycleError):
    """Some children of a batch failed; the ledger makes this one, and names them."""

    code = "batch_incomplete"


class StepFailedError(LifecycleError):
    """A step of an import failed, for a reason that is the import's too."""

    code = "step_failed"

    def __init__(self, step: str, reason: ErrorInfo) -> None:
        super().__init__(f"{step} failed: {reason.detail}", code=reason.code)
        self._reason = reason

    def info(self) -> ErrorInfo:
        """Return the step's own error, with the step's name."""
        return self._reason.model_copy(update={"detail": self.detail})


class SmokeTestFailedError(LifecycleError):
    """A new version did not pass its smoke test, and is left without its stage."""

    code = "smoke_test_failed"


class RequestError(LifecycleError):
    """The request cannot be served; trying again does not help."""

    code = "request_failed"


class InvalidInputError(RequestError):
    """A field of the request is wrong."""

    code = "invalid_input"


class UnsupportedTaskError(InvalidInputError):
    """The model, or its engine, cannot do the task."""

    code = "unsupported_task"


class UnsafeModelError(InvalidInputError):
    """The model's files could run code when loaded."""

    code = "unsafe_model"


class DeniedError(RequestError):
    """A store or a hub does not let the platform do this, with the credentials it has."""

    code = "denied"


class UnauthenticatedError(RequestError):
    """The caller shows no API key where one is needed, or one that is not good."""

    code = "unauthenticated"


class ForbiddenError(RequestError):
    """The caller's API key may not do this."""

    code = "forbidden"


class NotFoundError(RequestError):
    """What the request names does not exist."""

    code = "not_found"


class ConflictError(RequestError):
    """The request does not fit the present state."""

    code = "conflict"


class IdempotencyConflictError(ConflictError):
    """The idempotency key was used before, with another request."""

    code = "idempotency_conflict"


class NoServableVersionError(ConflictError):
    """The registered model has versions, but none in a stage that may be served."""

    code = "no_servable_version"


class DigestMismatchError(RequestError):
    """The bytes received differ from the published digest, also when fetched again."""

    code = "digest_mismatch"


class InsufficientDiskError(RequestError):
    """The disk has too little room for what was asked for."""

    code = "insufficient_disk"


class ModelLoadError(RequestError):
    """The model's files are incomplete, corrupt or do not fit each other."""

    code = "model_load_failed"


class CrashedError(RequestError):
    """The job's worker was lost more often than is allowed."""

    code = "crashed"


class TransientError(LifecycleError):
    """Something that may pass; the runner tries again with backoff."""

    code = "temporarily_failed"
    retryable = True


class UnavailableError(TransientError):
    """A store or a service does not answer, or answers that it cannot.

    One that names its ``service`` is an outage of one of the platform's own services: the job waits
    for its end. One that does not is tried again a few times, like every error that may pass.
    """

    code = "unavailable"

    def __init__(
        self, detail: str, *, field: str | None = None, code: str | None = None, service: str = ""
    ) -> None:
        super().__init__(detail, field=field, code=code)
        #: What is away, in the words that users know it by: lakeFS, MLflow, hub.
        self.service = service


class HostLostError(UnavailableError):
    """What the job needs is on a host that has no worker any more."""

    code = "host_lost"


class RateLimitedError(TransientError):
    """The caller calls more often than is allowed."""

    code = "rate_limited"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class QueueFullError(TransientError):
    """Too much waits already; nothing was accepted."""

    code = "queue_full"

    def __init__(self, detail: str, *, code: str, retry_after_seconds: int) -> None:
        super().__init__(detail, code=code)
        self.retry_after_seconds = retry_after_seconds


class OutOfMemoryError(TransientError):
    """There is no memory for the model or the request at this moment."""

    code = "out_of_memory"


class InternalError(LifecycleError):
    """A defect of the platform."""


class Interruption(LifecycleError):  # noqa: N818 - it is not a failure, it is an order
    """The work was told to stop."""

    code = "interrupted"


class CancelledError(Interruption):
    """The client cancelled the job."""

    code = "cancelled"


class DeadlineExceededError(Interruption):
    """The job's deadline passed."""

    code = "deadline_exceeded"


class StartDeadlineExceededError(DeadlineExceededError):
    """The job did not start within the time that its request gives; the ledger makes this one."""

    code = "start_deadline_exceeded"


class LeaseLostError(Interruption):
    """The job belongs to another worker now."""

    code = "lease_lost"


class DrainingError(Interruption):
    """The worker is shutting down and gives the job back."""

    code = "draining"
