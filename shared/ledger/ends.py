"""The ends of jobs, pushed to the API process that waits for them.

Each process subscribes to one channel. A job that it waits for carries the channel's name, and the
script that ends the job publishes its record there. Where a push is lost, because the subscription
broke meanwhile, the process asks: at once when it has subscribed again, and now and then anyway.
"""

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
import structlog
from redis.asyncio import Redis

from shared.errors import UnavailableError
from shared.jobs import Job, JobKind
from shared.ledger.async_ledger import AsyncLedger
from shared.ledger.record import Record
from shared.ledger.schema import schema_prefix
from shared.settings import LedgerSettings

#: The first look at a job whose end was not pushed, and the longest time between two.
POLL_SECONDS, POLL_MAX_SECONDS = 2.0, 16.0
#: Jobs that have children.
_PARENTS = {JobKind.IMPORT, JobKind.BATCH_DOWNLOAD}
#: Between two attempts to subscribe.
_PAUSE_SECONDS = 1.0

log = structlog.get_logger()


class End:
    """The end of one job that somebody waits for."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        #: The job as it ended, once that is known.
        self.job: Job | None = None

    def tell(self, job: Job | None) -> None:
        """Wake up the waiter: the job has ended, or (None) it should be looked at."""
        self.job = job or self.job
        self._told.set()

    async def wait(self, seconds: float) -> None:
        """Wait until told something, at most so long."""
        # Nothing of Redis is inside this time-out: Python 3.11's `wait_for`, which redis-py uses,
        # may swallow a cancellation that comes as its own work is done.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()
        self._told.clear()


class Ends:
    """Waits for the ends of jobs; belongs to one event loop."""

    def __init__(self, client: Redis, ledger: AsyncLedger, settings: LedgerSettings) -> None:
        #: A job that is accepted with it as its waiter pushes its end here.
        self.channel = f"{schema_prefix(settings)}:ends:{uuid.uuid4().hex}"
        self._redis = client
        self._ledger = ledger
        self._waiting: dict[str, set[End]] = {}
        self._listening: asyncio.Task[None] | None = None

    @contextmanager
    def expected(self, job_id: str) -> Iterator[End]:
        """Take notice of a job's end for the length of a block."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        end = End()
        self._waiting.setdefault(job_id, set()).add(end)
        try:
            yield end
        finally:
            waiting = self._waiting[job_id]
            waiting.discard(end)
            if not waiting:
                del self._waiting[job_id]

    async def ended(self, job_id: str, seconds: float) -> Job:
        """Wait for a job's end, at most so long; return the job as it is then."""
        with self.expected(job_id) as end:
            if await self._ledger.await_end(job_id, self.channel):
                return await self.wait(job_id, end, seconds)
        return await self._ledger.get(job_id)

    async def wait(self, job_id: str, end: End, seconds: float) -> Job:
        """Wait for an end that is pushed to this process; return the job as it is then."""
        clock = asyncio.get_running_loop().time
        deadline, pause = clock() + seconds, POLL_SECONDS
        while (left := deadline - clock()) > 0:
            await end.wait(min(left, pause))
            if end.job is not None:
                return end.job
            if clock() >= deadline or not await self._is_awaited(job_id):
                break
            pause = min(2 * pause, POLL_MAX_SECONDS)
        return await self._ledger.get(job_id)

    async def _is_awaited(self, job_id: str) -> bool:
        """Return whether the job's end is still to come, as far as Redis can be asked."""
        with suppress(UnavailableError):
            return await self._ledger.await_end(job_id, self.channel)
        return True

    async def close(self) -> None:
        """Stop listening."""
        # One cancellation may be swallowed, see `End.wait`.
        while self._listening is not None and not self._listening.done():
            self._listening.cancel()
            await asyncio.wait((self._listening,), timeout=0.1)
        await self._redis.aclose()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(self.channel)
                    async for message in subscription.listen():
                        self._take(message)
            except (redis.RedisError, OSError) as error:
                log.warning("not subscribed to the ends of jobs", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:
                log.exception("defect in a pushed end")
                await asyncio.sleep(_PAUSE_SECONDS)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            # For the first time or again: what ended before this moment was not pushed.
            for each in self._waiting.values():
                _tell(each, None)
        elif message["type"] == "message":
            said = json.loads(message["data"])
            if waiting := self._waiting.get(said["id"]):
                _tell(waiting, _job(said))


def _tell(waiting: set[End], job: Job | None) -> None:
    for end in waiting:
        end.tell(job)


def _job(said: dict[str, Any]) -> Job | None:
    """Return the job that a message brings; None where the job is to be read."""
    flat = said.get("record")
    if not flat:
        return None  # it is too large to be pushed
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    if fields["kind"] in _PARENTS:
        return None  # its children are not in the message
    return Record(fields, said.get("request"), said.get("result")).job()
