"""Jobs: list, look at, wait for, cancel, retry."""

import time
from typing import Any

from client.answers import Job, JobPage
from client.calls import TIMEOUT_SECONDS, Call, Conversation, ask, post_once
from client.calls import get as look
from client.errors import WaitTimeoutError, result_of
from shared.jobs import JobKind, JobState

#: One long poll; the API holds an answer for at most two minutes, proxies often for one.
_HOLD_SECONDS = 50.0


def get(job: Job | str) -> Call[Job]:
    """Look at a job as it is now."""
    return look(f"/jobs/{_id(job)}", Job)


def ls(
    *,
    state: JobState | str | None = None,
    kind: JobKind | str | None = None,
    model: str | None = None,
    parent_id: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[JobPage]:
    """List the jobs that fit all that is given, newest first, a page at a time."""
    return look(
        "/jobs",
        JobPage,
        state=state,
        kind=kind,
        model=model,
        parent_id=parent_id,
        limit=limit,
        cursor=cursor,
    )


def cancel(job: Job | str) -> Call[Job]:
    """Cancel a queued job at once, and ask a running one to stop."""
    return post_once(f"/jobs/{_id(job)}/cancel", Job)


def retry(job: Job | str) -> Call[Job]:
    """Queue a failed or cancelled job again, with fresh attempts."""
    return post_once(f"/jobs/{_id(job)}/retry", Job)


def wait(job: Job | str, timeout_seconds: float | None = None) -> Conversation[Job]:
    """Wait for a job's end, and return the job as it then is, however it ended.

    Raises ``WaitTimeoutError`` when the time is over; the job goes on.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        left = _HOLD_SECONDS if deadline is None else deadline - time.monotonic()
        now = yield from ask(_held(_id(job), max(0.0, min(left, _HOLD_SECONDS))))
        if now.state.terminal:
            return now
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeoutError(now, f"has not ended within {timeout_seconds:g} s")


def result(job: Job | str, timeout_seconds: float | None = None) -> Conversation[dict[str, Any]]:
    """Wait for a job's end, and return its result.

    Raises ``JobFailedError`` or ``JobCancelledError`` when it brought none.
    """
    return result_of((yield from wait(job, timeout_seconds)))


def _held(job_id: str, seconds: float) -> Call[Job]:
    call = look(f"/jobs/{job_id}", Job, wait=round(seconds, 3))
    return Call(
        call.method,
        call.path,
        call.answer,
        params=call.params,
        timeout_seconds=seconds + TIMEOUT_SECONDS,
    )


def _id(job: Job | str) -> str:
    return job if isinstance(job, str) else job.job_id
