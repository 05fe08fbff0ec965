"""Jobs exist for the key that made them, and for admins."""

from typing import Annotated

from fastapi import Depends, Path

from api.callers import Calling
from api.services import Provided
from shared.errors import NotFoundError
from shared.jobs import Job

JobId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-zA-Z-]{1,64}$",
        openapi_examples={"job": {"value": "019aac2e-7c52-7d10-a3b5-0d0c6e1f2a3b"}},
    ),
]


async def _own_job(services: Provided, caller: Calling, job_id: JobId) -> Job:
    """Return the job of the path; another's is as unknown as one that never was."""
    job = await services.ledger.get(job_id)
    if caller.submitter not in {None, job.submitter}:
        raise NotFoundError(f"there is no job {job_id!r}", code="job_not_found")
    return job


OwnJob = Annotated[Job, Depends(_own_job)]
