"""A job's events, as they come: state, progress, thinking, token, restart, done."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.ledger.connection import redis_errors
from shared.settings import LedgerSettings, RedisSettings

#: One blocking read waits at most this long; it bounds how late a closed client is noticed.
BLOCK_SECONDS = 5
#: Who follows or waits holds a connection: as many as Redis itself takes where nobody set more.
MAX_CONNECTIONS = 10_000


@dataclass(frozen=True)
class Event:
    """One entry of a job's stream."""

    #: Redis' id of the entry; later events have greater ids.
    id: str
    #: ``state``, ``progress``, ``thinking``, ``token``, ``restart`` or ``done``.
    name: str
    data: dict[str, Any]


class EventReader:
    """Reads events without holding a thread; made for many clients that wait at once."""

    def __init__(self, redis_settings: RedisSettings, settings: LedgerSettings) -> None:
        self._prefix = settings.prefix
        self._redis = Redis.from_url(
            redis_settings.url.get_secret_value(),
            decode_responses=True,
            max_connections=MAX_CONNECTIONS,
            socket_timeout=BLOCK_SECONDS + redis_settings.timeout_seconds,
            socket_connect_timeout=redis_settings.timeout_seconds,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 1),
        )

    async def last_id(self, job_id: str) -> str:
        """Return the id of the job's newest event."""
        with redis_errors():
            newest = await self._redis.xrevrange(self._key(job_id), count=1)
        return str(newest[0][0]) if newest else "0"

    async def follow(self, job_id: str, after: str = "0") -> AsyncIterator[Event | None]:
        """Yield the events after an id, the past ones first, up to and with ``done``.

        Yields None where nothing happened for a while, so that the caller can look around.
        """
        while True:
            events = await self._read(job_id, after, count=500, block=BLOCK_SECONDS * 1000)
            if not events:
                yield None
            for event in events:
                after = event.id
                yield event
                if event.name == "done":
                    return

    async def since(self, job_id: str, after: str) -> list[Event]:
        """Return the events that there are after an id."""
        return await self._read(job_id, after)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def _read(self, job_id: str, after: str, **how: int) -> list[Event]:
        with redis_errors():
            answer = await self._redis.xread({self._key(job_id): after}, **how)
        streams = answer.items() if isinstance(answer, dict) else answer or ()
        return [
            Event(entry_id, fields["event"], json.loads(fields["data"]))
            for entry_id, fields in _entries(streams)
        ]

    def _key(self, job_id: str) -> str:
        return f"{self._prefix}:events:{job_id}"


def _entries(streams: Any) -> list[tuple[str, dict[str, str]]]:
    return [entry for _, entries in streams for entry in entries]
