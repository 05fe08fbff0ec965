"""A job's events, as they come: state, progress, thinking, token, restart, done."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from shared.ledger.connection import connect_async, redis_errors
from shared.ledger.schema import schema_prefix
from shared.settings import LedgerSettings, RedisSettings

#: One blocking read waits at most this long; it bounds how late a closed client is noticed.
BLOCK_SECONDS = 5


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
        self._prefix = schema_prefix(settings)
        self._redis = connect_async(
            redis_settings, answer_seconds=BLOCK_SECONDS + redis_settings.timeout_seconds
        )

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
