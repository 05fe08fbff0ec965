"""The reading side of the ledger."""

from collections.abc import Sequence

import redis

from shared.errors import NotFoundError
from shared.jobs import Job, JobKind, JobState
from shared.ledger.connection import redis_errors
from shared.ledger.record import to_job
from shared.settings import LedgerSettings

#: Jobs read at most to fill one page of a listing that filters by more than its index.
SCAN_LIMIT = 2000


class JobReader:
    """Looks at jobs, and changes nothing."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._prefix = settings.prefix
        self._quarantine_crashes = settings.quarantine_crashes

    def get(self, job_id: str) -> Job:
        """Return a job; raise ``NotFoundError`` if it is unknown."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self._key("job", job_id))
            pipe.zrange(self._key("children", job_id), 0, -1)
            record, children = pipe.execute()
        if not record:
            raise NotFoundError(f"there is no job {job_id!r}", code="job_not_found")
        return self._placed([to_job(record, tuple(children))])[0]

    def page(
        self,
        *,
        state: JobState | None = None,
        kind: JobKind | None = None,
        model: str | None = None,
        parent_id: str | None = None,
        submitter: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Return jobs that fit, newest first, and the cursor of the next page if there is one."""
        wanted = {
            "state": state,
            "kind": kind,
            "model": model,
            "parent_id": parent_id,
            "submitter": submitter,
        }
        criteria = {name: str(value) for name, value in wanted.items() if value is not None}
        found, next_cursor = self._scan(criteria, limit, cursor)
        return self._placed(found), next_cursor

    def ended(self, job_id: str) -> bool:
        """Return whether a job has ended, or is forgotten."""
        with redis_errors():
            state = self._redis.hget(self._key("job", job_id), "state")
        return state is None or JobState(str(state)).terminal

    def quarantined(self, job_id: str) -> bool:
        """Return whether a job waits to be run alone."""
        with redis_errors():
            state, crashes = self._redis.hmget(self._key("job", job_id), "state", "crashes")
        return state == JobState.QUEUED.value and int(crashes or 0) >= self._quarantine_crashes

    def queued(self, queue: str) -> int:
        """Return how many jobs wait in a queue."""
        with redis_errors():
            return int(self._redis.zcard(self._key("ready", queue)))

    def ping(self) -> None:
        """Raise ``UnavailableError`` if Redis does not answer."""
        with redis_errors():
            self._redis.ping()

    def _scan(
        self, criteria: dict[str, str], limit: int, cursor: str | None
    ) -> tuple[list[Job], str | None]:
        index, before, found = self._index(criteria), cursor, list[Job]()
        for _ in range(SCAN_LIMIT // max(limit, 1)):
            ids = self._before(index, before, limit)
            for job_id, record in zip(ids, self._records(ids), strict=True):
                before = job_id
                if record and all(record.get(name) == value for name, value in criteria.items()):
                    found.append(to_job(record))
                if len(found) == limit:
                    return found, before
            if len(ids) < limit:
                return found, None
        return found, before

    def _placed(self, jobs: list[Job]) -> list[Job]:
        """Give the queued ones of some jobs their positions."""
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        if not queued:
            return jobs
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for job in queued:
                pipe.zrank(self._key("ready", job.queue), job.id)
            ranks = dict(zip((job.id for job in queued), pipe.execute(), strict=True))
        return [job.model_copy(update={"position": ranks.get(job.id)}) for job in jobs]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _index(self, criteria: dict[str, str]) -> str:
        if parent := criteria.get("parent_id"):
            return self._key("children", parent)
        for name in ("submitter", "model", "state", "kind"):
            if value := criteria.get(name):
                return self._key("by", name, value)
        return self._key("jobs")

    def _before(self, index: str, cursor: str | None, limit: int) -> list[str]:
        newest = f"({cursor}" if cursor else "+"
        with redis_errors():
            return [str(id_) for id_ in self._redis.zrevrangebylex(index, newest, "-", 0, limit)]

    def _records(self, ids: Sequence[str]) -> list[dict[str, str]]:
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in ids:
                pipe.hgetall(self._key("job", job_id))
            return list(pipe.execute())
