"""How a job is written in Redis: a hash of small strings, times in milliseconds; JSON apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import uuid_utils

from shared.errors import ErrorInfo
from shared.jobs import Job, JobKind, JobState, Outage, Progress

#: A request whose JSON is larger is deleted when its job ends; what is shown of it is cut.
LARGE_REQUEST_BYTES = 64 * 1024
#: Longer texts are cut out of what is shown of a large request.
_SHOWN_CHARACTERS = 1024


def new_id() -> str:
    """Return a fresh job id; ids sort by their time of creation."""
    return str(uuid_utils.uuid7())


@dataclass
class NewJob:
    """A job that is to be accepted; who accepts it fills in what the route does not know."""

    kind: JobKind
    request: dict[str, Any]
    #: Empty for a batch: it is never claimed.
    queue: str
    #: The name of the model in listings and at Flower.
    model: str
    max_attempts: int
    priority: int = 5
    #: Seconds from acceptance to the deadline; None for no limit.
    lifetime_seconds: float | None = None
    #: Seconds from acceptance within which it is to start; None for no limit.
    start_within_seconds: float | None = None
    #: The id of the API key that submits it; empty where no keys are in use.
    submitter: str = ""
    #: Jobs with equal affinities need the same model to be warm.
    affinity: str = ""
    #: Whether its events are written from the start.
    streams: bool = False
    #: Its place among the equal parts of its parent's work: its progress is the parent's too.
    part: tuple[int, int] | None = None
    #: The job that waits for it, where that accepts it while it runs.
    parent_id: str | None = None
    #: The channel of an API process that waits for its end, which is published there.
    waiter: str = ""
    id: str = field(default_factory=new_id)

    def accepted(self, now: int, children: tuple[str, ...], position: int | None) -> Job:
        """Return the job as it is after it was accepted at ``now``, in milliseconds."""
        moment, lifetime = _moment(str(now)), self.lifetime_seconds
        return Job(
            id=self.id,
            kind=self.kind,
            state=JobState.QUEUED if self.queue else JobState.RUNNING,
            request=self.request,
            model=self.model,
            queue=self.queue,
            submitter=self.submitter,
            affinity=self.affinity,
            priority=self.priority,
            created_at=moment,
            available_at=moment,
            started_at=None if self.queue else moment,
            deadline=None if lifetime is None else moment + timedelta(seconds=lifetime),
            max_attempts=self.max_attempts,
            children=children,
            position=position,
        )

    def encoded(self, fingerprint: str = "") -> dict[str, Any]:
        """Return what the script's ``put`` writes."""
        request = json.dumps(self.request, separators=(",", ":"))
        fields = {
            "id": self.id,
            "kind": self.kind.value,
            "queue": self.queue,
            "model": self.model,
            "max_attempts": self.max_attempts,
            "priority": self.priority,
            "submitter": self.submitter,
            "affinity": self.affinity,
            "followed": int(self.streams) or "",
            "bytes": len(request),
            "lifetime": _milliseconds(self.lifetime_seconds),
            "start_within": _milliseconds(self.start_within_seconds),
            "parent_id": self.parent_id or "",
            "fingerprint": fingerprint,
            "waiters": self.waiter,
        }
        if self.part is not None:
            fields["part"], fields["parts"] = self.part
        encoded: dict[str, Any] = {"request": request}
        if len(request) > LARGE_REQUEST_BYTES:
            fields["cut"] = 1
            encoded = {"request": _cut(self.request), "input": request}
        return encoded | {"fields": {name: value for name, value in fields.items() if value != ""}}


def _milliseconds(seconds: float | None) -> int | str:
    return "" if seconds is None else round(seconds * 1000)


def _cut(request: dict[str, Any]) -> str:
    """Return a request without its long texts; without its lists and objects if these are many."""
    shown = json.dumps(_shortened(request), separators=(",", ":"))
    if len(shown) <= LARGE_REQUEST_BYTES:
        return shown
    scalars = {k: v for k, v in request.items() if not isinstance(v, dict | list)}
    return json.dumps(_shortened(scalars), separators=(",", ":"))


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:64]}… ({len(value)} characters)"
    return value


@dataclass(frozen=True)
class Record:
    """A job's fields as Redis holds them, with its request and result as JSON."""

    fields: Mapping[str, str]
    #: None where it was left out.
    request: str | None = None
    result: str | None = None

    children: tuple[str, ...] = ()

    @classmethod
    def of(cls, flat: Sequence[Any]) -> "Record":
        """Read what the script's ``record_of`` returns."""
        fields, request, result, children = flat
        record = dict(zip(fields[::2], fields[1::2], strict=True))
        return cls(record, request, result, tuple(children))

    def job(self, position: int | None = None) -> Job:
        """Return the job."""
        record = self.fields
        progress, error = record.get("progress"), record.get("error")
        return Job(
            id=record["id"],
            kind=JobKind(record["kind"]),
            state=JobState(record["state"]),
            request=_json(self.request) or {},
            model=record.get("model", ""),
            queue=record.get("queue", ""),
            submitter=record.get("submitter", ""),
            affinity=record.get("affinity", ""),
            priority=int(record["priority"]),
            created_at=_moment(record["created_at"]),
            available_at=_moment(record.get("available_at") or record["created_at"]),
            started_at=_time(record.get("started_at")),
            finished_at=_time(record.get("finished_at")),
            deadline=_time(record.get("deadline")),
            attempts=int(record["attempts"]),
            max_attempts=int(record["max_attempts"]),
            crashes=int(record["crashes"]),
            owner=record.get("owner"),
            fence=int(record["fence"]),
            nonce=record.get("nonce", ""),
            lease_until=_time(record.get("lease_until")),
            progress=Progress.model_validate_json(progress) if progress else None,
            result=_json(self.result),
            error=ErrorInfo.model_validate_json(error) if error else None,
            parent_id=record.get("parent_id"),
            children=self.children,
            awaits=record.get("awaits"),
            waiting_for=_outage(record.get("waiting_for")),
            cancel_requested="cancel_requested" in record,
            position=position,
            epoch=int(record["epoch"]) if "epoch" in record else None,
        )


def _time(value: str | None) -> datetime | None:
    return _moment(value) if value else None


def _moment(value: str) -> datetime:
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
