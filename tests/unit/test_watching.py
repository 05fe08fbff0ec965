"""What a watched job's row says while a service that the job needs does not answer."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from rich.status import Status

from client import Event, Job, Outage
from client.answers import JobState
from client.terminal.answering import _awaited
from client.terminal.watching import missing_after, title_of
from shared.jobs import JobKind

NOW = datetime(2026, 1, 2, tzinfo=UTC)
JOB = Job(job_id="0", kind=JobKind.UPLOAD, state=JobState.QUEUED, created_at=NOW)
WAITS = {"state": "queued", "waiting_for": {"service": "lakeFS", "reason": "refused"}}


def test_the_row_names_the_service() -> None:
    outage = Outage(service="lakeFS", since=NOW, reason="refused")
    waiting = JOB.model_copy(update={"waiting_for": outage})
    assert title_of(waiting, None, outage.service) == "waits for lakeFS"
    assert title_of(JOB, None) == "upload"


@pytest.mark.parametrize(
    ("name", "data", "missing"),
    [
        ("state", WAITS, "lakeFS"),
        ("state", {"state": "running"}, "hub"),
        ("state", {"state": "queued"}, ""),
        ("progress", {"completed": 1}, ""),
        ("done", {"state": "succeeded"}, ""),
    ],
    ids=["misses it", "tries again", "queued for another reason", "goes on", "ends"],
)
def test_the_row_says_so_until_the_job_goes_on(
    name: str, data: dict[str, object], missing: str
) -> None:
    assert missing_after(Event(id="1-0", name=name, data=data), "hub") == missing


def test_an_answer_that_waits_names_the_service_too() -> None:
    running = {"state": "running"}
    events = [Event(id="1-0", name="state", data=data) for data in (running, WAITS, running)]
    client: Any = SimpleNamespace(jobs=SimpleNamespace(events=lambda _: iter(events)))
    status = Status("")
    job = JOB.model_copy(update={"model": "llama"})
    said = [status.status for _ in _awaited(client, job, status)]
    assert said == ["llama is running", "llama waits for lakeFS", "llama waits for lakeFS"]
