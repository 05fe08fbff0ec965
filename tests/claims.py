"""Jobs and claims of tests; a claim says which job it expects."""

from typing import Any

from shared.jobs import Job, JobKind
from shared.ledger import Ledger, NewJob, Want
from shared.ledger.schema import celery_queue


def want(worker: str, *queues: str, **how: object) -> Want:
    """Return what the first slot of a worker wants of some queues."""
    return Want(slot=f"{worker}/0", owner=worker, queues=queues, **how)  # type: ignore[arg-type]


def claim_next(ledger: Ledger, worker: str, *queues: str, **how: object) -> Job | None:
    """Return the job that a worker gets; None if there is none for it."""
    jobs = ledger.claim(want(worker, *queues, **how)).jobs
    return jobs[0] if jobs else None


def claim(ledger: Ledger, job_id: str, worker: str = "cpu@a", **how: object) -> Job:
    """Have a worker claim a job, which must be the next of its queue."""
    claimed = claim_next(ledger, worker, ledger.get(job_id).queue, **how)
    assert claimed is not None, f"{worker} got nothing"
    assert claimed.id == job_id, f"{worker} got another job"
    return claimed


def download(model: str, **changes: Any) -> NewJob:
    """Return a download, with some fields changed."""
    fields: dict[str, Any] = {
        "kind": JobKind.DOWNLOAD,
        "request": {"model_name": model},
        "queue": "downloads",
        "model": model,
        "max_attempts": 3,
    }
    return NewJob(**(fields | changes))


def entries(ledger: Ledger, lanes: str) -> int:
    """Return how many entries stand in the list that idle slots of a queue wait for."""
    return int(ledger._redis.llen(celery_queue(ledger._settings, lanes)))
