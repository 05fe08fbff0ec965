"""From a validated request to a job in the ledger, and to the answer that the client asked for."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog
from fastapi import Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.errors import problem
from api.threads import SUBMITS
from api.views import JobView
from api.waiting import Wait
from shared.errors import InvalidInputError, UnavailableError
from shared.jobs import Job, JobState
from shared.ledger import EventReader, Ledger, NewJob
from shared.requests import JobRequest, TimedRequest
from shared.settings import LedgerSettings

#: Raises where a new job is refused.
Check = Callable[[], None]


class Submission:
    """Accepts jobs, and answers for them."""

    def __init__(self, ledger: Ledger, events: EventReader) -> None:
        self._ledger = ledger
        self._events = events

    async def submit(
        self, job: NewJob, wait: Wait, children: Sequence[NewJob] = (), check: Check | None = None
    ) -> Response:
        """Accept a job and answer: 202 while it runs, or how it ended within the wait."""
        if check is not None:
            await run_in_threadpool(self._check, job, wait, check)
        return await self.answered(await SUBMITS.run(self.accept, job, wait, children), wait)

    def accept(self, job: NewJob, wait: Wait, children: Sequence[NewJob] = ()) -> Job:
        """Write a job of the caller's down."""
        job = replace(job, submitter=wait.submitter)
        children = [replace(child, submitter=wait.submitter) for child in children]
        return self._ledger.accept(job, children, wait.idempotency_key)[0]

    def accepted_before(self, job: NewJob, wait: Wait) -> Job | None:
        """Return the job that the caller's key stands for already; it is not checked anew."""
        if wait.idempotency_key is None:
            return None
        job = replace(job, submitter=wait.submitter)
        return self._ledger.accepted_before(job, wait.idempotency_key)

    def _check(self, job: NewJob, wait: Wait, check: Check) -> None:
        if self.accepted_before(job, wait) is None:
            check()

    async def answered(self, accepted: Job, wait: Wait) -> Response:
        """Answer for a job that was just accepted."""
        # The line that the log has of this call names the job: from there its id leads on.
        structlog.contextvars.bind_contextvars(job_id=accepted.id)
        if wait.seconds and not accepted.state.terminal:
            # The job is accepted: where no wait is to be had, its answer is that of no wait.
            with suppress(UnavailableError):
                accepted = await self.ended(accepted.id, wait.seconds)
        return answer(accepted)

    async def ended(self, job_id: str, seconds: float) -> Job:
        """Wait for a job's end, at most so long, and return the job as it then is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                after = await self._events.last_id(job_id)
                if not await run_in_threadpool(self._ledger.ended, job_id):
                    async for _ in self._events.follow(job_id, after):
                        pass
        return await run_in_threadpool(self._ledger.get, job_id)


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
    if job.state is JobState.FAILED and job.error is not None:
        return problem(job.error, job_id=job.id)
    view = JobView.of(job)
    return JSONResponse(
        view.model_dump(mode="json"),
        status_code=200 if job.state.terminal else 202,
        headers={"Location": view.links.self},
    )
