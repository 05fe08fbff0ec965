"""What a client reads of a job."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import Response

from api.views import JobPage, JobView, job_response
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
    assert JobView.of(job(JobKind.DOWNLOAD, state, **fields)).message == message


def test_only_inferences_show_the_fields_of_a_synchronous_answer() -> None:
    views = [JobView.of(job(kind)) for kind in (JobKind.DOWNLOAD, JobKind.INFER)]
    page = shown(job_response(JobPage(jobs=views, next_cursor=None)))
    assert [shown(job_response(view)) for view in views] == page["jobs"]
    assert "success" not in page["jobs"][0]
    assert page["jobs"][1].keys() - page["jobs"][0].keys() >= {"success", "task", "model_name"}


def job(kind: JobKind, state: JobState = JobState.QUEUED, **fields: Any) -> Job:
    return Job(
        id="0",
        kind=kind,
        state=state,
        request={},
        queue="downloads",
        priority=5,
        created_at=NOW,
        available_at=NOW,
        max_attempts=3,
        **fields,
    )


def shown(response: Response) -> Any:
    return json.loads(bytes(response.body))
