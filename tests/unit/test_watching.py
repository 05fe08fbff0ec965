"""What a watched job's row says while a service that the job needs does not answer."""

from datetime import UTC, datetime

import pytest

from client import Event, Job, Outage
from client.answers import JobState
from client.terminal.watching import _missing, title_of
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
    assert _missing(Event(id="1-0", name=name, data=data), "hub") == missing
