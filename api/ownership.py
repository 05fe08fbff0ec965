"""Jobs and files exist for the key that made them, and for admins."""

from typing import Annotated, Any

from fastapi import Depends, Path

from api.callers import Calling
from api.services import Provided
from shared.errors import NotFoundError
from shared.jobs import Job
from shared.media.files import FileStore
from shared.media.references import FILE_ID

JobId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-zA-Z-]{1,64}$",
        openapi_examples={"job": {"value": "019aac2e-7c52-7d10-a3b5-0d0c6e1f2a3b"}},
    ),
]


def _own_job(services: Provided, caller: Calling, job_id: JobId) -> Job:
    """Return the job of the path; another's is as unknown as one that never was."""
    job = services.ledger.get(job_id)
    if caller.submitter not in {None, job.submitter}:
        raise NotFoundError(f"there is no job {job_id!r}", code="job_not_found")
    return job


OwnJob = Annotated[Job, Depends(_own_job)]


def check_files(files: FileStore, submitter: str | None, data: dict[str, Any]) -> None:
    """Refuse data that name a file of somebody else, as if there were none."""
    if submitter is None:
        return
    values: list[tuple[str, Any]] = [("data", data)]
    while values:
        field, value = values.pop()
        if isinstance(value, dict):
            values += [(f"{field}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            values += [(f"{field}.{number}", inner) for number, inner in enumerate(value)]
        elif isinstance(value, str) and FILE_ID.fullmatch(value):
            files.get(value, field, submitter=submitter)
