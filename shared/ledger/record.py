"""How a job is written in Redis: a flat hash of strings, times in milliseconds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uuid_utils

from shared.errors import ErrorInfo
from shared.jobs import Job, JobKind, JobState, Outage, Progress


def new_id() -> str:
    """Return a fresh job id; ids sort by their time of creation."""
    return str(uuid_utils.uuid7())


@dataclass(frozen=True)
class NewJob:
    """A job that is to be accepted."""

    kind: JobKind
    request: dict[str, Any]
    #: Empty for a parent: it is never claimed.
    queue: str
    #: What listings and Flower call it.
    model: str
    max_attempts: int
    priority: int = 5
    #: Seconds from acceptance to the deadline; None for no limit.
    lifetime_seconds: float | None = None
    #: Seconds from acceptance within which it is to start; None for no limit.
    start_within_seconds: float | None = None
    #: The id of the API key that submits it; empty where no keys are in use.
    submitter: str = ""
    #: Which of how many equal parts of its parent's work it is: its progress is the parent's too.
    part: tuple[int, int] | None = None
    #: The job that waits for it, where that accepts it while it runs.
    parent_id: str | None = None
    id: str = field(default_factory=new_id)

    def to_fields(self) -> dict[str, str | int]:
        """Return the hash fields that the client's request decides."""
        fields: dict[str, str | int] = {
            "id": self.id,
            "kind": self.kind.value,
            "request": json.dumps(self.request, separators=(",", ":")),
            "queue": self.queue,
            "model": self.model,
            "max_attempts": self.max_attempts,
            "priority": self.priority,
            "submitter": self.submitter,
        }
        if self.lifetime_seconds is not None:
            fields["lifetime"] = round(self.lifetime_seconds * 1000)
        if self.start_within_seconds is not None:
            fields["start_within"] = round(self.start_within_seconds * 1000)
        if self.parent_id is not None:
            fields["parent_id"] = self.parent_id
        if self.part is not None:
            fields["part"], fields["parts"] = self.part
        return fields


def _time(value: str | None) -> datetime | None:
    return datetime.fromtimestamp(float(value) / 1000, UTC) if value else None


def _created(value: str) -> datetime:
    return datetime.fromtimestamp(float(value) / 1000, UTC)


def _json(value: str | None) -> Any:
    return json.loads(value) if value else None


def _outage(value: str | None) -> Outage | None:
    if not value:
        return None
    fields = json.loads(value)
    return Outage(
        service=fields["service"],
        since=datetime.fromtimestamp(fields["since"] / 1000, UTC),
        reason=fields["reason"],
    )


def to_job(
    record: Mapping[str, str], children: tuple[str, ...] = (), position: int | None = None
) -> Job:
    """Read a job's hash."""
    progress, error = record.get("progress"), record.get("error")
    return Job(
        id=record["id"],
        kind=JobKind(record["kind"]),
        state=JobState(record["state"]),
        request=_json(record["request"]),
        model=record["model"],
        queue=record["queue"],
        submitter=record.get("submitter", ""),
        priority=int(record["priority"]),
        created_at=_created(record["created_at"]),
        available_at=_created(record["available_at"]),
        started_at=_time(record.get("started_at")),
        finished_at=_time(record.get("finished_at")),
        deadline=_time(record.get("deadline")),
        attempts=int(record["attempts"]),
        max_attempts=int(record["max_attempts"]),
        crashes=int(record["crashes"]),
        owner=record.get("owner") or None,
        fence=int(record["fence"]),
        lease_until=_time(record.get("lease_until")),
        progress=Progress.model_validate_json(progress) if progress else None,
        result=_json(record.get("result")),
        error=ErrorInfo.model_validate_json(error) if error else None,
        parent_id=record.get("parent_id") or None,
        children=children,
        awaits=record.get("awaits") or None,
        waiting_for=_outage(record.get("waiting_for")),
        cancel_requested=record.get("cancel_requested") == "1",
        position=position,
    )
