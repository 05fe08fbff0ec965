"""Every error of the client.

ClientError
├── AddressError             what was given is no address of an API
├── UnreachableError         no answer from the API, also when asked again
├── ProblemError             the API refused the call; ``problem`` is its document
│   ├── InvalidRequestError  a field of the request is wrong
│   ├── DeniedError          no API key, or one that may not do this
│   ├── NotFoundError        what the call names does not exist
│   ├── ConflictError        the call does not fit the present state
│   └── BusyError            the platform cannot take the call now; later it may
├── JobError                 the job has not brought what it was to bring; ``job`` says why
│   ├── JobFailedError       it failed
│   ├── JobCancelledError    somebody cancelled it
│   └── WaitTimeoutError     it goes on, but the time to wait for it is over
└── StreamError              the events of a job cannot be read
"""

from typing import Any

from client.answers import Job, Problem


class ClientError(Exception):
    """The root of all errors that the client raises on purpose."""


class AddressError(ClientError):
    """What was given is no address of an API."""


class UnreachableError(ClientError):
    """No answer from the API, also when asked again."""


class StreamError(ClientError):
    """The events of a job cannot be read, though the API answers."""


class ProblemError(ClientError):
    """The API refused the call."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class InvalidRequestError(ProblemError):
    """A field of the request is wrong."""


class DeniedError(ProblemError):
    """No API key was given, or one that may not do this."""


class NotFoundError(ProblemError):
    """What the call names does not exist, or is somebody else's."""


class ConflictError(ProblemError):
    """The call does not fit the present state."""


class BusyError(ProblemError):
    """The platform cannot take the call now, also when asked again."""


_STATUSES: dict[int, type[ProblemError]] = {
    400: InvalidRequestError,
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: BusyError,
    503: BusyError,
}


def refusal(problem: Problem) -> ProblemError:
    """Return a problem document as the error of its status."""
    return _STATUSES.get(problem.status, ProblemError)(problem)


class JobError(ClientError):
    """The job has not brought what it was to bring."""

    def __init__(self, job: Job, reason: str) -> None:
        super().__init__(f"job {job.job_id} {reason}")
        self.job = job


class JobFailedError(JobError):
    """The job failed."""


class JobCancelledError(JobError):
    """Somebody cancelled the job."""


class WaitTimeoutError(JobError):
    """The job goes on, but the time to wait for it is over."""


def result_of(job: Job) -> dict[str, Any]:
    """Return what an ended job brought; raise what became of it otherwise."""
    if job.state == "failed":
        raise JobFailedError(job, f"failed: {job.error.detail if job.error else job.message}")
    if job.state == "cancelled":
        raise JobCancelledError(job, "was cancelled")
    return job.result or {}
