"""Counts the transitions of stages, so that no process remembers an older resolution."""

import math
import time

import redis
from redis.asyncio import Redis

from shared.errors import UnavailableError
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

    async def now(self) -> int:
        """Return the number as it was a moment ago."""
        now = time.monotonic()
        if now - self._read_at > RECENT_SECONDS:
            # Before the answer: one call asks, and the others meanwhile use the last number.
            before, self._read_at = self._read_at, now
            try:
                with redis_errors():
                    self._number = int(await self._redis.get(self._key) or 0)
            except UnavailableError:
                self._read_at = before
                raise
        return self._number


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
