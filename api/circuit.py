"""A Redis that hangs holds a few calls for one time-out, and not all that come after them."""

import threading
import time
from typing import Any

import redis

from shared.ledger import connect
from shared.settings import RedisSettings

#: For so long nothing is asked of a Redis that let somebody wait in vain; then one asks.
PAUSE_SECONDS = 1.0


def connect_impatiently(settings: RedisSettings) -> "redis.Redis":
    """Return a client for many callers: where Redis hangs, most of them are told so at once."""
    # A connection that broke is worth another try; a Redis that hangs would hang again.
    return connect(settings, Circuit, retried=(redis.ConnectionError,))


class Circuit(redis.ConnectionPool):
    """Gives no connection for a moment after a call that failed by waiting.

    It is Redis' time alone that counts: who waits for a thread, because of load, opens nothing.
    """

    def __init__(self, **arguments: Any) -> None:
        self._patience_seconds = float(arguments["socket_timeout"])
        self._call = threading.local()
        self._gate = threading.Lock()
        #: When the next call may ask; None while Redis answers.
        self._next_at: float | None = None
        super().__init__(**arguments)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection for a call, or raise ``redis.TimeoutError`` at once."""
        self._call.began_at = now = time.monotonic()
        with self._gate:
            if self._next_at is not None:
                if now < self._next_at:
                    raise redis.TimeoutError("Redis let others wait in vain")
                self._next_at = now + PAUSE_SECONDS
        return super().get_connection()

    def release(self, connection: Any) -> None:
        """Take a connection back; one that is closed is what a call leaves that failed."""
        now = time.monotonic()
        if connection.is_connected:
            self._next_at = None
        elif now - getattr(self._call, "began_at", now) >= self._patience_seconds:
            self._next_at = now + PAUSE_SECONDS
        super().release(connection)
