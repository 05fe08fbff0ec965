"""What clients ask of the ledger, apart from how it is reached.

Each function is a generator: it yields calls of Redis, is sent their answers, and returns its own.
So ``Ledger`` and ``AsyncLedger`` run the same code, the one blocking and the other not.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import (
    ConflictError,
    IdempotencyConflictError,
    NotFoundError,
    UnavailableError,
)
from shared.jobs import Job, JobState
from shared.ledger.counts import Counts, to_counts
from shared.ledger.listings import Listings
from shared.ledger.record import NewJob, Record
from shared.ledger.refusals import refused
from shared.ledger.schema import schema_prefix
from shared.ledger.scripts import PIECE, Commands, Operation, Steps
from shared.settings import LedgerSettings

#: Pieces of a batch that nobody accepted are deleted after this time.
_PIECES_SECONDS = 600


class Queries(Listings):
    """The operations of clients on one ledger."""

    def __init__(self, settings: LedgerSettings) -> None:
        super().__init__(schema_prefix(settings))
        #: That of schema 1, whose jobs ``migration`` adopts.
        self._old_prefix = settings.prefix

    def accept(
        self, job: NewJob, children: Sequence[NewJob] = (), idempotency_key: str | None = None
    ) -> Steps[tuple[Job, bool]]:
        """Write a job down, with its children, and return it and whether it is new."""
        encoded = job.encoded(_fingerprint(job) if idempotency_key else "")
        own = _own(idempotency_key, job) if idempotency_key else ""
        # One JSON text: redis-py encodes each argument for itself.
        fields = json.dumps(encoded["fields"])
        arguments = fields, encoded["request"], encoded.get("input", ""), own
        if children:
            for child in children:
                child.parent_id = job.id
            parts = [child.encoded() for child in children]
            asked = json.dumps([_asked([encoded]), _asked(parts)])
            yield self._pieces(job, parts)
            accept = Operation("accept_batch", (*arguments, len(children), asked))
        else:
            accept = Operation("accept", arguments)
        answer = yield accept
        match answer:
            case "refused", reason:
                raise refused(reason)
            case "conflict", job_id:
                raise _used_before(job_id)
            case "existing", job_id:
                return (yield from self.get(job_id)), False
            case ("incomplete",):
                raise UnavailableError(
                    "Redis lost a part of the batch", code="redis_unavailable", service="Redis"
                )
        _, now, position = answer
        yield from self._sweep(job.id if children else None)
        return job.accepted(now, tuple(child.id for child in children), position), True

    def accepted_before(self, job: NewJob, idempotency_key: str) -> Steps[Job | None]:
        """Return the job that ``accept`` would give for a key that was used; None if it was not."""
        own = self._key("idempotency", _own(idempotency_key, job))
        (held,) = yield Commands((("GET", own),))
        if not held:
            return None
        (fingerprint,) = yield Commands((("HGET", self._key("job", held), "fingerprint"),))
        if not fingerprint:
            return None
        if fingerprint != _fingerprint(job):
            raise _used_before(held)
        return (yield from self.get(held))

    def cancel(self, job_id: str, idempotency_key: str | None = None) -> Steps[Job]:
        """Cancel a queued job, ask a running one to stop; raise ``ConflictError`` if it ended."""
        nonce = f"cancel:{idempotency_key or uuid.uuid4().hex}"
        outcome, state = yield Operation("cancel", (job_id, nonce))
        if outcome == "ended":
            ended = "been cancelled" if state == "cancelled" else state
            raise ConflictError(f"job {job_id} has already {ended}", code="job_ended")
        yield from self._sweep(job_id)
        return (yield from self.get(job_id))

    def revive(self, job_id: str, idempotency_key: str | None = None) -> Steps[Job]:
        """Queue a failed or cancelled job again, with fresh attempts."""
        nonce = f"revive:{idempotency_key or uuid.uuid4().hex}"
        outcome, state = yield Operation("revive", (job_id, nonce))
        if outcome == "full":
            raise refused(state)
        if outcome in _NOT_REVIVED:
            raise ConflictError(
                _NOT_REVIVED[outcome].format(job_id=job_id, state=state), code="job_not_retryable"
            )
        yield from self._sweep(job_id)
        return (yield from self.get(job_id))

    def get(self, job_id: str) -> Steps[Job]:
        """Return a job; raise ``NotFoundError`` if it is unknown."""
        fields, request, result, children = yield Commands(
            (
                ("HGETALL", self._key("job", job_id)),
                ("GET", self._key("request", job_id)),
                ("GET", self._key("result", job_id)),
                ("ZRANGE", self._key("children", job_id), 0, -1),
            )
        )
        if not fields:
            return (yield from self._missing(job_id))
        job = Record(fields, request, result, tuple(children)).job()
        return (yield from self._placed([job]))[0]

    def _missing(self, job_id: str) -> Steps[Job]:
        """Return a job that has just been adopted; raise an error if it was not."""
        is_old, is_adopted = yield Commands(
            (
                ("EXISTS", f"{self._old_prefix}:job:{job_id}"),
                ("EXISTS", self._key("job", job_id)),
            )
        )
        if is_adopted:
            return (yield from self.get(job_id))
        if is_old:
            raise UnavailableError(
                f"job {job_id} is not taken over from the older version yet", code="job_not_adopted"
            )
        raise NotFoundError(f"there is no job {job_id!r}", code="job_not_found")

    def take_untold(self, limit: int) -> Steps[list[Job]]:
        """Return jobs whose ends Celery was not told of, each to one caller."""
        (ids,) = yield Commands((("LPOP", self._key("untold"), limit),))
        return (yield from self._listed(ids or ()))

    def ended(self, job_id: str) -> Steps[bool]:
        """Return whether a job has ended, or is forgotten."""
        (state,) = yield Commands((("HGET", self._key("job", job_id), "state"),))
        return state is None or JobState(state).terminal

    def await_end(self, job_id: str, channel: str) -> Steps[bool]:
        """Have the job's end published on a channel; return False if it has ended already."""
        return bool((yield Operation("await_end", (job_id, channel))))

    def follow(self, job_id: str) -> Steps[None]:
        """Have the job's events written; the first ones say how it is now."""
        yield Operation("follow", (job_id,))

    def queued(self, queue: str) -> Steps[int]:
        """Return how many jobs wait in a queue."""
        (number,) = yield Commands((("ZCARD", self._key("ready", queue)),))
        return int(number)

    def counts(self) -> Steps[Counts]:
        """Return what happened so far, and what waits."""
        return to_counts(*(yield Operation("snapshot")))

    def ping(self) -> Steps[None]:
        """Raise ``UnavailableError`` if Redis does not answer."""
        yield Commands((("PING",),))

    def _pieces(self, job: NewJob, children: Sequence[Mapping[str, Any]]) -> Commands:
        """Return the commands that bring a batch's children, before the batch is accepted."""
        key = self._key("pieces", job.id)
        pieces = [children[start : start + PIECE] for start in range(0, len(children), PIECE)]
        commands: list[tuple[str | int, ...]] = [("DEL", key)]
        for piece in pieces:
            # Each push may be the last before this process dies.
            commands += ("RPUSH", key, json.dumps(piece)), ("EXPIRE", key, _PIECES_SECONDS)
        return Commands(tuple(commands))

    def _sweep(self, job_id: str | None) -> Steps[None]:
        """Do the rest of what a call does to a batch's children, piece by piece.

        If this process dies before it is done, the reconcilers continue.
        """
        while job_id and (yield Operation("sweep", (job_id,))):
            pass

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


_NOT_REVIVED = {
    "refused": "job {job_id} is {state}; only failed and cancelled jobs are retried",
    "forgotten": "the parts of job {job_id} that did not succeed are forgotten",
    "freed": "the large input of job {job_id} was deleted when the job ended; submit it again",
}


def _asked(encoded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what jobs of one queue and one submitter ask of the ledger's bounds."""
    first = encoded[0]["fields"]
    return {
        "queue": first.get("queue", ""),
        "submitter": first.get("submitter", ""),
        "bytes": sum(each["fields"]["bytes"] for each in encoded),
        "jobs": len(encoded),
    }


def _own(idempotency_key: str, job: NewJob) -> str:
    """Return a key as the submitter's own; each has keys of its own."""
    return f"{job.submitter}:{idempotency_key}"


def _used_before(job_id: str) -> IdempotencyConflictError:
    detail = f"the idempotency key was used for another request, job {job_id}"
    return IdempotencyConflictError(detail, field="Idempotency-Key")


def _fingerprint(job: NewJob) -> str:
    content = json.dumps([job.kind, job.request], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
