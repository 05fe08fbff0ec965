"""What a client reads of a job's state, in words."""

from datetime import UTC, datetime
from typing import Any

import pytest

from api.views import JobView
from shared.errors import ErrorInfo
from shared.jobs import Job, JobKind, JobState, Outage, Progress

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PROGRESS = Progress(completed=1, total=2, unit="bytes", message="model.safetensors")
ERROR = ErrorInfo(code="hub_unavailable", detail="the hub does not answer")

OUTAGE = Outage(service="hub", since=NOW, reason="the hub does not answer")


@pytest.mark.parametrize(
    ("state", "fields", "message"),
    [
        (JobState.QUEUED, {}, "queued"),
        (JobState.QUEUED, {"error": ERROR}, "will be tried again: the hub does not answer"),
        (
            JobState.QUEUED,
            {"error": ERROR, "waiting_for": OUTAGE},
            "waits for hub, away since 00:00:00 UTC: the hub does not answer",
        ),
        (JobState.RUNNING, {}, "running"),
        (JobState.RUNNING, {"progress": PROGRESS}, "running: model.safetensors"),
        (JobState.RUNNING, {"cancel_requested": True}, "stopping, as asked"),
        (JobState.SUCCEEDED, {"progress": PROGRESS}, "succeeded"),
        (JobState.CANCELLED, {"progress": PROGRESS, "cancel_requested": True}, "cancelled"),
        (JobState.FAILED, {"progress": PROGRESS, "error": ERROR}, "the hub does not answer"),
    ],
)
def test_a_job_says_in_words_how_it_is(
    state: JobState, fields: dict[str, Any], message: str
) -> None:
    job = Job(
        id="0",
        kind=JobKind.DOWNLOAD,
        state=state,
        request={},
        queue="downloads",
        priority=5,
        created_at=NOW,
        available_at=NOW,
        max_attempts=3,
        **fields,
    )
    assert JobView.of(job).message == message
