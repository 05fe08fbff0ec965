"""Connections to Redis that answer, or fail, in bounded time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import UnavailableError
from shared.settings import RedisSettings


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

    What fails in a way that is ``retried``, it tries once more by itself.
    """
    connections = pool.from_url(
        settings.url.get_secret_value(),
        decode_responses=True,
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 1, retried),
    )
    return redis.Redis.from_pool(connections)


#: Refusals that pass, and that redis-py has no class for, wherever a script's error has them.
_REFUSALS = re.compile(r"\b(OOM|MISCONF|NOREPLICAS|READONLY|BUSY)\b")


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
        known = isinstance(error, redis.ReadOnlyError | redis.OutOfMemoryError)
        if not known and not _REFUSALS.search(str(error)):
            raise
        raise _away(f"Redis refuses: {error}") from error


def _away(detail: str) -> UnavailableError:
    return UnavailableError(detail, code="redis_unavailable", service="Redis")
