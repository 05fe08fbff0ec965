"""Counts the transitions of stages, so that no process remembers an older resolution."""

import asyncio
import math
import time

import redis
from redis.asyncio import Redis

from shared.ledger.connection import redis_errors
from shared.settings import LedgerSettings

#: The number that an API process knows is at most this old.
RECENT_SECONDS = 0.2


class RecentEpoch:
    """The same number for an event loop, read from Redis now and then."""

    def __init__(self, client: Redis, settings: LedgerSettings) -> None:
        self._redis = client
        self._key = epoch_key(settings)
        self._number = 0
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None

    async def now(self) -> int:
        """Return the number as it was a moment ago."""
        if time.monotonic() - self._read_at > RECENT_SECONDS:
            # One call asks for all that come meanwhile, even if its caller goes away.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            await asyncio.shield(self._reading)
        return self._number

    async def _read(self) -> None:
        began_at = time.monotonic()
        with redis_errors():
            self._number = int(await self._redis.get(self._key) or 0)
        self._read_at = began_at


class TransitionEpoch:
    """One number for all processes."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._key = epoch_key(settings)

    def now(self) -> int:
        """Return a number that is another after each transition."""
        with redis_errors():
            return int(str(self._redis.get(self._key) or 0))

    def advance(self) -> None:
        """Say that there was a transition."""
        with redis_errors():
            self._redis.incr(self._key)


def epoch_key(settings: LedgerSettings) -> str:
    """Return the key of the number; it is the same in all schemas."""
    return f"{settings.prefix}:transitions"
