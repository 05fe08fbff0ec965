"""Jobs: list, look at, wait for, follow, cancel, retry."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from api.callers import Calling
from api.documented import CONFLICT, EVENT_STREAM, NOT_FOUND
from api.ownership import OwnJob
from api.services import Provided, Services
from api.views import JobPage, JobView, job_response
from api.waiting import MAX_WAIT_SECONDS
from shared.errors import UnavailableError
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Event, Filter

router = APIRouter(prefix="/jobs", tags=["jobs"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A call whose answer was lost is sent again with the same key: no 409.",
    ),
]


@dataclass(frozen=True)
class Paging:
    """Which piece of a list is asked for."""

    limit: Annotated[int, Query(ge=1, le=500)] = 50
    cursor: Annotated[str | None, Query(pattern=r"^[0-9a-zA-Z-]{1,64}$")] = None


@router.get("", summary="List jobs, newest first", response_model=JobPage)
async def list_jobs(
    services: Provided,
    caller: Calling,
    page: Annotated[Paging, Depends()],
    state: JobState | None = None,
    kind: JobKind | None = None,
    model: Annotated[
        str | None, Query(max_length=300, openapi_examples={"m": {"value": "org/model"}})
    ] = None,
    parent_id: Annotated[str | None, Query(pattern=r"^[0-9a-zA-Z-]{1,64}$")] = None,
) -> Response:
    """Return the jobs that fit all that is given; a key sees its own, an admin's all.

    Requests and results of more than 4 KB are left out; a look at the job shows them.
    """
    wanted = Filter(
        state=state, kind=kind, model=model, parent_id=parent_id, submitter=caller.submitter
    )
    jobs, next_cursor = await services.ledger.page(wanted, limit=page.limit, cursor=page.cursor)
    views = [JobView.of(job) for job in jobs]
    return job_response(JobPage.model_construct(jobs=views, next_cursor=next_cursor))


@router.get(
    "/{job_id}",
    summary="Look at a job, or wait for its end",
    responses=NOT_FOUND,
    response_model=JobView,
)
async def get_job(
    services: Provided,
    job: OwnJob,
    wait: Annotated[
        float,
        Query(
            ge=0, le=MAX_WAIT_SECONDS, description="Hold the answer for the job's end, in seconds."
        ),
    ] = 0,
) -> Response:
    """Return the job as it is, or as it is when it has ended or the wait is over."""
    if wait and not job.state.terminal:
        job = await services.ends.ended(job.id, wait)
    return job_response(JobView.of(job))


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses=NOT_FOUND
    | {
        200: {"content": {"text/event-stream": EVENT_STREAM}},
        204: {"description": "The job has ended, and all its events were received."},
    },
)
async def follow_job(
    services: Provided,
    request: Request,
    job: OwnJob,
    last_event_id: Annotated[
        str | None,
        Header(
            # Each part is a number of 64 bits at Redis, to which 20 digits may be too many.
            pattern=r"^[0-9]{1,19}(-[0-9]{1,19})?$",
            description="Go on after this event; without it, the stream starts with the job.",
        ),
    ] = None,
) -> Response:
    """Send the job's events, with `done` as the last: `state`, `progress`, `token` and others.

    `token` brings a piece of the answer, `thinking` one of what the model thinks before it.

    `restart` means that a new attempt generates the text again from the beginning, because the
    worker or the model's server was lost: discard the `thinking` and `token`
    events before it.

    204: the job has ended and there are no events after `Last-Event-ID`, so there is no reason to
    connect again.
    """
    if last_event_id is not None and await _received_all(services, job, last_event_id):
        return Response(status_code=204)
    await services.ledger.follow(job.id)
    return StreamingResponse(
        _sent_events(services, request, job.id, last_event_id or "0"),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _received_all(services: Services, job: Job, last_event_id: str) -> bool:
    """Return whether a job has ended and a client has its last event."""
    if job.finished_at is None or await services.events.since(job.id, last_event_id):
        return False
    # Ids of events begin with the milliseconds of Redis' clock. The events of a job that ended
    # some time ago are deleted: a client that was away since before its end is sent the end again.
    return int(last_event_id.partition("-")[0]) >= job.finished_at.timestamp() * 1000 - 1


async def _sent_events(
    services: Services, request: Request, job_id: str, after: str
) -> AsyncIterator[bytes]:
    try:
        async for event in services.events.follow(job_id, after):
            if event is not None:
                after = event.id
                yield _sent(event)
            elif await request.is_disconnected():
                return
            elif await services.ledger.ended(job_id):
                # It may have ended since nothing had happened for a while.
                for last in await services.events.since(job_id, after):
                    yield _sent(last)
                return
            else:
                yield format_sse_event(comment="still here")
    except UnavailableError:
        # The stream has begun: the client sees it end and comes back with its Last-Event-ID.
        return


def _sent(event: Event) -> bytes:
    data = json.dumps(event.data, ensure_ascii=False)
    return format_sse_event(data_str=data, event=event.name, id=event.id)


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses=NOT_FOUND | CONFLICT,
    status_code=202,
    response_model=JobView,
)
async def cancel_job(
    services: Provided, job: OwnJob, idempotency_key: IdempotencyKey = None
) -> Response:
    """Cancel a queued job at once, and ask a running one to stop; 409 if it has ended."""
    return job_response(JobView.of(await services.ledger.cancel(job.id, idempotency_key)), 202)


@router.post(
    "/{job_id}/retry",
    summary="Try a failed or cancelled job again",
    responses=NOT_FOUND | CONFLICT,
    status_code=202,
    response_model=JobView,
)
async def retry_job(
    services: Provided, job: OwnJob, idempotency_key: IdempotencyKey = None
) -> Response:
    """Queue the job again with fresh attempts; 409 unless it failed or was cancelled.

    Also 409 if its request had more than 64 KB: that is deleted when a job ends.
    """
    return job_response(JobView.of(await services.ledger.revive(job.id, idempotency_key)), 202)
