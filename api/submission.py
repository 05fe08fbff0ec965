"""From a validated request to a job in the ledger, and to the answer that the client asked for."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from fastapi import Response

from api.errors import problem
from api.views import JobView, job_response
from api.waiting import Wait
from shared.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.jobs import Job, JobState
from shared.ledger import AsyncLedger, Ends, NewJob
from shared.requests import JobRequest, TimedRequest
from shared.settings import LedgerSettings

#: Fills in a new job; raises where it is refused.
Prepare = Callable[[NewJob], Awaitable[None]]


class Submission:
    """Accepts jobs, and answers for them."""

    def __init__(self, ledger: AsyncLedger, ends: Ends) -> None:
        self._ledger = ledger
        self._ends = ends

    async def submit(
        self,
        job: NewJob,
        wait: Wait,
        children: Sequence[NewJob] = (),
        prepare: Prepare | None = None,
    ) -> Response:
        """Accept a job and answer: 202 while it runs, or how it ended within the wait.

        The job that an idempotency key stands for already is not checked again.
        """
        for each in (job, *children):
            each.submitter = wait.submitter
        if wait.seconds:
            job.waiter = self._ends.channel
        accepted = None
        if prepare is not None:
            if wait.idempotency_key is not None:
                accepted = await self._ledger.accepted_before(job, wait.idempotency_key)
            if accepted is None:
                await prepare(job)
        if accepted is None and not wait.seconds:
            accepted, _ = await self._ledger.accept(job, children, wait.idempotency_key)
        elif accepted is None:
            accepted = await self._accepted_and_ended(job, children, wait)
        elif wait.seconds:
            accepted = await self._ended(accepted, wait.seconds)
        return answer(accepted)

    async def _accepted_and_ended(self, job: NewJob, children: Sequence[NewJob], wait: Wait) -> Job:
        with self._ends.expected(job.id) as end:
            accepted, is_new = await self._ledger.accept(job, children, wait.idempotency_key)
            if is_new:
                return await _after(self._ends.wait(job.id, end, wait.seconds), accepted)
        return await self._ended(accepted, wait.seconds)

    async def _ended(self, job: Job, seconds: float) -> Job:
        if job.state.terminal:
            return job
        return await _after(self._ends.ended(job.id, seconds), job)


async def _after(wait: Awaitable[Job], accepted: Job) -> Job:
    """Return an accepted job as it is after a wait."""
    try:
        return await wait
    except UnavailableError:
        # If waiting is impossible, answer as if no wait was requested.
        return accepted
    except NotFoundError as error:
        raise UnavailableError(
            "a failover of Redis lost the job: submit it again",
            code="redis_unavailable",
            service="Redis",
        ) from error


def check_timeout(settings: LedgerSettings, request: JobRequest, field: str = "") -> None:
    """Refuse a deadline beyond the time after which every job is stopped."""
    seconds = request.timeout_seconds if isinstance(request, TimedRequest) else None
    if seconds is not None and seconds > settings.max_seconds:
        raise InvalidInputError(
            f"no job may take longer than {settings.max_seconds:g} s (LEDGER_MAX_SECONDS)",
            field=f"{field}timeout_seconds",
        )


def answer(job: Job) -> Response:
    """Answer a submit: 202 while the job runs; then 200, or the problem that it ended with."""
    # The log line of this call names the job.
    structlog.contextvars.bind_contextvars(job_id=job.id)
    if job.state is JobState.FAILED and job.error is not None:
        return problem(job.error, job_id=job.id)
    view = JobView.of(job)
    status = 200 if job.state.terminal else 202
    return job_response(view, status, {"Location": view.links.self})
