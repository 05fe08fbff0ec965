"""Counts the transitions of stages, so that no process remembers an older resolution."""

import redis

from shared.ledger.connection import redis_errors
from shared.settings import LedgerSettings


class TransitionEpoch:
    """One number for all processes."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._key = f"{settings.prefix}:transitions"

    def now(self) -> int:
        """Return a number that is another after each transition."""
        with redis_errors():
            return int(str(self._redis.get(self._key) or 0))

    def advance(self) -> None:
        """Say that there was a transition."""
        with redis_errors():
            self._redis.incr(self._key)
