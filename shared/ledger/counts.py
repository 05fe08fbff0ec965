"""What the ledger counts: what happened to jobs, how long runs took, what waits in each queue."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Any

from shared.jobs import JobKind

#: Upper bounds of the histogram of run times; a run longer than the last is in the total only.
RUN_SECONDS_BOUNDS = (0.05, 0.25, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)


class JobEvent(StrEnum):
    """What is counted; each only grows."""

    ACCEPTED = "accepted"
    #: Not accepted, because too much waits.
    REFUSED = "refused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: A failed or cancelled job was queued again, as a client asked.
    REVIVED = "revived"
    #: An attempt failed in a way that may pass, and the job was queued again.
    RETRIED = "retried"
    #: A service did not answer, and the job was queued again to wait for it.
    POSTPONED = "postponed"
    #: A worker that shut down gave the job back.
    RETURNED = "returned"
    #: A worker was lost while it ran the job.
    LOST = "lost"
    #: The job was given up, for it lost too many workers; it counts as failed too.
    CRASHED = "crashed"
    #: The job had ended long ago and was forgotten.
    EXPIRED = "expired"


@dataclass(frozen=True)
class EventCount:
    """How often something happened to jobs of a kind in a queue."""

    event: JobEvent
    kind: JobKind
    #: Empty for parents of batches: they wait in none.
    queue: str
    count: int


@dataclass(frozen=True)
class RunTimes:
    """How long the runs of a kind took, each from its claim to whatever ended it."""

    kind: JobKind
    count: int
    sum_seconds: float
    #: How many runs took at most each of ``RUN_SECONDS_BOUNDS``.
    within: tuple[int, ...]


@dataclass(frozen=True)
class QueueDepth:
    """What waits in a queue."""

    queue: str
    queued: int
    #: Since the oldest job that waits was accepted; None if none waits.
    oldest_seconds: float | None


@dataclass(frozen=True)
class Counts:
    """All counts at one moment."""

    events: tuple[EventCount, ...]
    runs: tuple[RunTimes, ...]
    #: Every queue that ever held a job.
    queues: tuple[QueueDepth, ...]
    #: Of the requests of all jobs that have not ended, as JSON.
    request_bytes: int
    #: How many jobs wait for the end of an outage, by the service that is away.
    waiting: Mapping[str, int] = field(default_factory=dict)

    def total(self, event: JobEvent, kind: JobKind | None = None, queue: str | None = None) -> int:
        """Return how often something happened, to all jobs or to those of a kind or a queue."""
        return sum(
            each.count
            for each in self.events
            if each.event is event and kind in {None, each.kind} and queue in {None, each.queue}
        )


def to_counts(
    events: list[str],
    runs: list[str],
    queues: list[list[Any]],
    request_bytes: int,
    waiting: list[str],
) -> Counts:
    """Read what ``snapshot.lua`` returns."""
    return Counts(
        events=tuple(sorted(map(_event, *_pairs(events)), key=lambda each: each.event)),
        runs=_run_times(dict(zip(*_pairs(runs), strict=True))),
        queues=tuple(
            QueueDepth(str(name), int(queued), int(age) / 1000 if queued else None)
            for name, queued, age in sorted(queues)
        ),
        request_bytes=request_bytes,
        waiting={name: int(count) for name, count in zip(*_pairs(waiting), strict=True)},
    )


def _pairs(flat: list[str]) -> tuple[list[str], list[str]]:
    return flat[::2], flat[1::2]


def _event(name: str, value: str) -> EventCount:
    event, kind, queue = name.split(":", 2)
    return EventCount(JobEvent(event), JobKind(kind), queue, int(value))


def _run_times(fields: dict[str, str]) -> tuple[RunTimes, ...]:
    sums, buckets = dict[str, int](), dict[str, Counter[int]]()
    for name, value in fields.items():
        kind, part = name.split(":")
        if part == "sum":
            sums[kind] = int(value)
        else:
            buckets.setdefault(kind, Counter())[int(part)] = int(value)
    places = range(1, len(RUN_SECONDS_BOUNDS) + 1)
    return tuple(
        RunTimes(
            kind=JobKind(kind),
            count=counted.total(),
            sum_seconds=sums[kind] / 1000,
            within=tuple(accumulate(counted[place] for place in places)),
        )
        for kind, counted in sorted(buckets.items())
    )
