"""Circuit breaker for a Redis that stops answering: few calls wait, the others fail at once."""

import asyncio
import threading
import time
from typing import Any

import redis
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis

from shared.ledger import connect, connect_async
from shared.settings import RedisSettings

#: After a call that timed out no call is sent for this long; then one is.
PAUSE_SECONDS = 1.0
#: Connections of an event loop: enough for thousands of calls a second, and few to open at once.
_CONNECTIONS = 16


def connect_with_breaker(settings: RedisSettings) -> "redis.Redis":
    """Return a client for many threads; where Redis hangs, most calls fail at once."""
    # A connection that broke is worth another try; a Redis that hangs would hang again.
    return connect(settings, _BreakerPool, retried=(redis.ConnectionError,))


def connect_async_with_breaker(settings: RedisSettings) -> AsyncRedis:
    """Return the same for an event loop."""
    return connect_async(settings, _AsyncBreakerPool)


class CircuitBreaker:
    """Opens for a moment after a call that failed by waiting.

    Only the time that Redis takes counts: calls that wait for a thread or for the event loop,
    because of load, do not open it.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        #: When the next call may be sent; None while Redis answers.
        self._next_at: float | None = None

    def enter(self) -> float:
        """Return the time at which a call begins; raise ``redis.TimeoutError`` while open."""
        now = time.monotonic()
        if self._next_at is not None:
            with self._lock:
                if self._next_at is not None and now < self._next_at:
                    raise redis.TimeoutError("Redis did not answer other calls in time")
                self._next_at = now + PAUSE_SECONDS
        return now

    def leave(self, began_at: float, *, answered: bool) -> None:
        """Take note of how a call ended."""
        now = time.monotonic()
        if answered:
            self._next_at = None
        elif now - began_at >= self._timeout_seconds:
            self._next_at = now + PAUSE_SECONDS


class _BreakerPool(redis.ConnectionPool):
    """Gives no connections while its circuit breaker is open."""

    def __init__(self, **arguments: Any) -> None:
        self._breaker = CircuitBreaker(float(arguments["socket_timeout"]))
        self._call = threading.local()
        super().__init__(**arguments)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection for a call."""
        self._call.began_at = self._breaker.enter()
        return super().get_connection()

    def release(self, connection: Any) -> None:
        """Take a connection back; a failed call closed it."""
        began_at = getattr(self._call, "began_at", time.monotonic())
        self._breaker.leave(began_at, answered=connection.is_connected)
        super().release(connection)


class _AsyncBreakerPool(AsyncConnectionPool):
    """The same for an event loop."""

    def __init__(self, **arguments: Any) -> None:
        self._breaker = CircuitBreaker(float(arguments["socket_timeout"]))
        self._began_at: dict[Any, float] = {}
        self._free = asyncio.Semaphore(_CONNECTIONS)
        super().__init__(**arguments)

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection for a call."""
        # A burst of calls waits here for connections, rather than open one for each call.
        await self._free.acquire()
        try:
            began_at = self._breaker.enter()
        except redis.TimeoutError:
            self._free.release()
            raise
        try:
            connection = await super().get_connection()  # type: ignore[no-untyped-call]
        except BaseException:
            self._free.release()
            self._breaker.leave(began_at, answered=False)
            raise
        self._began_at[connection] = began_at
        return connection

    async def release(self, connection: Any) -> None:
        """Take a connection back; a failed call closed it."""
        if (began_at := self._began_at.pop(connection, None)) is not None:
            self._free.release()
            self._breaker.leave(began_at, answered=connection.is_connected)
        await super().release(connection)
