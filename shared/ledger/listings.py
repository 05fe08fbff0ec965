"""Pages of jobs: which fit, newest first, and what is shown of each."""

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, product

from shared.jobs import Job, JobKind, JobState
from shared.ledger.record import Record
from shared.ledger.scripts import Commands, Operation, Steps

#: A listing leaves out larger requests and results; a look at the job shows them.
LISTED_BYTES = 4096


@dataclass(frozen=True)
class Filter:
    """Which jobs a listing shows; None: all."""

    state: JobState | None = None
    kind: JobKind | None = None
    model: str | None = None
    parent_id: str | None = None
    submitter: str | None = None


class Listings:
    """The listings of one ledger: generators, as ``Queries`` explains."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def page(
        self, wanted: Filter, limit: int = 50, cursor: str | None = None
    ) -> Steps[tuple[list[Job], str | None]]:
        """Return jobs that fit, newest first, and the cursor of the next page if there is one."""
        ids = yield from self._found(wanted, limit + 1, cursor)
        jobs = yield from self._listed(ids[:limit])
        return jobs, ids[limit - 1] if len(ids) > limit else None

    def waiting(self, queue: str, limit: int) -> Steps[list[Job]]:
        """Return the first jobs that wait in a queue."""
        (ids,) = yield Commands((("ZRANGE", self._key("ready", queue), 0, limit - 1),))
        return (yield from self._listed(ids))

    def _found(self, wanted: Filter, limit: int, cursor: str | None) -> Steps[list[str]]:
        """Return the ids of the newest jobs that fit."""
        if wanted.parent_id is None:
            indices = self._indices(wanted)
        elif wanted == Filter(parent_id=wanted.parent_id):
            indices = [self._key("children", wanted.parent_id)]
        else:
            return (yield from self._children(wanted, wanted.parent_id, limit, cursor))
        newest = f"({cursor}" if cursor else "+"
        found = yield Commands(
            tuple(("ZREVRANGEBYLEX", each, newest, "-", "LIMIT", 0, limit) for each in indices)
        )
        return list(islice(heapq.merge(*found, reverse=True), limit))

    def _children(
        self, wanted: Filter, parent_id: str, limit: int, cursor: str | None
    ) -> Steps[list[str]]:
        """Return the ids of the newest children that fit."""
        fields = json.dumps(_fields_of(wanted))
        ids, kind = yield Operation("children", (parent_id, cursor or "", limit, fields))
        if not kind or wanted.kind not in {None, kind}:
            return list(ids)
        # Few of many fit. Redis goes through the smaller of two sets.
        children = self._key("children", parent_id)
        indices = self._indices(replace(wanted, kind=JobKind(kind)))
        found = yield Commands(tuple(("ZINTER", 2, children, index) for index in indices))
        fitting = (each for ids in found for each in ids if not cursor or each < cursor)
        return heapq.nlargest(limit, fitting)

    def _indices(self, wanted: Filter) -> list[str]:
        """Return the indices that together hold exactly the jobs that fit."""
        kinds = [wanted.kind] if wanted.kind else list(JobKind)
        states = [wanted.state] if wanted.state else list(JobState)
        match wanted.submitter, wanted.model:
            case None, None:
                suffix = ""
            case None, model:
                suffix = f":model:{model}"
            case submitter, None:
                suffix = f":submitter:{submitter}"
            case submitter, model:
                suffix = f":both:{submitter}:{model}"
        return [
            self._key("jobs", kind.value, state.value) + suffix
            for kind, state in product(kinds, states)
        ]

    def _listed(self, ids: Sequence[str]) -> Steps[list[Job]]:
        """Return the jobs that exist, with what is small of their requests and results."""
        if not ids:
            return []
        answers = yield Commands(
            tuple(command for job_id in ids for command in self._short_record(job_id))
        )
        records = zip(answers[::3], answers[1::3], answers[2::3], strict=True)
        jobs = [
            Record(fields, _small(request), _small(result)).job()
            for fields, request, result in records
            if fields
        ]
        return (yield from self._placed(jobs))

    def _short_record(self, job_id: str) -> tuple[tuple[str | int, ...], ...]:
        return (
            ("HGETALL", self._key("job", job_id)),
            ("GETRANGE", self._key("request", job_id), 0, LISTED_BYTES),
            ("GETRANGE", self._key("result", job_id), 0, LISTED_BYTES),
        )

    def _placed(self, jobs: list[Job]) -> Steps[list[Job]]:
        """Give the queued ones of some jobs their positions."""
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        if not queued:
            return jobs
        ranks = yield Commands(
            tuple(("ZRANK", self._key("ready", job.queue), job.id) for job in queued)
        )
        positions: Mapping[str, int | None] = dict(
            zip((job.id for job in queued), ranks, strict=True)
        )
        return [job.model_copy(update={"position": positions.get(job.id)}) for job in jobs]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _fields_of(wanted: Filter) -> dict[str, str]:
    """Return the values that a filter wants of the fields of a job."""
    fields = asdict(replace(wanted, parent_id=None))
    return {name: value for name, value in fields.items() if value is not None}


def _small(text: str) -> str | None:
    return text if 0 < len(text) <= LISTED_BYTES else None
