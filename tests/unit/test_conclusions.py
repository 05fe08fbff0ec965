"""The command line says what a job has brought, and what to know of it."""

from datetime import UTC, datetime
from typing import Any

from client.answers import Job, JobState
from client.terminal.conclusions import conclusion
from shared.jobs import JobKind

REGISTERED = {"name": "chat", "version": "3", "stage": "none"}


def ended(kind: JobKind, **result: Any) -> Job:
    return Job(
        job_id="1",
        kind=kind,
        state=JobState.SUCCEEDED,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        result=result,
    )


def test_a_note_follows_the_sentence() -> None:
    assert conclusion(ended(JobKind.REGISTER, **REGISTERED)) == "chat version 3, stage none"
    noted = ended(JobKind.IMPORT, **REGISTERED, note="No branch holds it")
    assert conclusion(noted) == "chat version 3, stage none\n  No branch holds it"
