"""Connections to Redis that answer, or fail, in bounded time."""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError
from redis.retry import Retry

from shared.errors import UnavailableError
from shared.ledger.patience import patient
from shared.settings import RedisSettings

T = TypeVar("T")
#: As many as Redis itself takes by default: each follower of events holds one.
MAX_CONNECTIONS = 10_000


def connect(
    settings: RedisSettings,
    pool: type["redis.ConnectionPool"] = redis.ConnectionPool,
    retried: tuple[type[Exception], ...] = (
        redis.ConnectionError,
        redis.TimeoutError,
        TimeoutError,
    ),
) -> "redis.Redis":
    """Return a client with a pool; it connects at its first use.

    A call that fails with one of the ``retried`` errors, or because its Redis is a replica now, is
    repeated once on a new connection: behind the same address there may be a new primary.
    """
    connections = pool.from_url(
        settings.url.get_secret_value(),
        decode_responses=True,
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        socket_keepalive=True,
        health_check_interval=10,
        retry=_RetryOnNewConnection(NoBackoff(), 1, (*retried, redis.ResponseError)),
    )
    return redis.Redis.from_pool(connections)


def connect_async(
    settings: RedisSettings,
    pool: type["AsyncConnectionPool"] = AsyncConnectionPool,
    *,
    answer_seconds: float | None = None,
) -> "AsyncRedis":
    """Return an asynchronous client with a pool; it connects at its first use.

    A call whose connection broke is repeated once; a call that timed out is not.
    ``answer_seconds`` is how long an answer may take, where that is longer than the setting.
    """
    connections = pool.from_url(
        settings.url.get_secret_value(),
        decode_responses=True,
        socket_timeout=answer_seconds or settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        socket_keepalive=True,
        health_check_interval=10,
        max_connections=MAX_CONNECTIONS,
        retry=_AsyncRetryOnNewConnection(
            NoBackoff(), 1, (redis.ConnectionError, redis.ResponseError)
        ),
    )
    connections.connection_class = patient(connections.connection_class)
    return AsyncRedis.from_pool(connections)


class _RetryOnNewConnection(Retry):
    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[[Exception], Any] | Callable[[Exception, int], Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """Repeat a failed call, but not one that Redis refused, unless a replica refused it."""
        return super().call_with_retry(
            do, fail, is_retryable or _may_pass_elsewhere, with_failure_count
        )


class _AsyncRetryOnNewConnection(AsyncRetry):
    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[T]],
        fail: Callable[[Exception], Any] | Callable[[Exception, int], Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """Repeat as told, but of what Redis refuses only what a replica refuses."""
        return await super().call_with_retry(
            do, fail, is_retryable or _may_pass_elsewhere, with_failure_count
        )


def _may_pass_elsewhere(error: Exception) -> bool:
    return not isinstance(error, redis.ResponseError) or is_of_replica(error)


def is_of_replica(answer: object) -> bool:
    """Return whether an answer of Redis is that it is a replica, and refuses what writes."""
    # Before Redis 7 the error of a script has the code of the command inside its text.
    return isinstance(answer, redis.ResponseError) and "READONLY" in str(answer)


#: Refusals that pass, and that redis-py has no class for, wherever a script's error has them.
_REFUSALS = re.compile(r"\b(OOM|MISCONF|NOREPLICAS|READONLY|BUSY)\b")


#: How a node of a Redis Cluster refuses a script that works on keys of other nodes.
_CLUSTER = "non local key in a cluster node"


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn Redis' failures into ours."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise UnavailableError(
            "Redis does not let us in: the password in REDIS_URL", code="redis_unavailable"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise _away("Redis does not answer") from error
    except redis.ResponseError as error:
        if isinstance(error, MovedError) or _CLUSTER in str(error):
            raise _away("REDIS_URL leads to a Redis Cluster, which is not supported") from error
        known = isinstance(error, redis.ReadOnlyError | redis.OutOfMemoryError)
        if not known and not _REFUSALS.search(str(error)):
            raise
        raise _away(f"Redis refuses: {error}") from error


def _away(detail: str) -> UnavailableError:
    return UnavailableError(detail, code="redis_unavailable", service="Redis")
