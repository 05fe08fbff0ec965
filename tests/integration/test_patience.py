"""Calls of Redis in an event loop that stands still for a while."""

import asyncio
import time
from collections.abc import Callable

import pytest
import redis
from redis.asyncio import Redis

from api.circuit import connect_async_with_breaker
from shared.ledger import connect_async
from shared.settings import RedisSettings

TIMEOUT_SECONDS = 0.3


@pytest.fixture(params=[connect_async, connect_async_with_breaker])
def connect_impatiently(
    request: pytest.FixtureRequest, redis_settings: RedisSettings
) -> Callable[[], Redis]:
    settings = redis_settings.model_copy(update={"timeout_seconds": TIMEOUT_SECONDS})
    return lambda: request.param(settings)


def test_an_answer_that_came_while_the_loop_stood_still_is_read(
    connect_impatiently: Callable[[], Redis],
) -> None:
    async def answers() -> list[object]:
        async with connect_impatiently() as client:
            await client.ping()
            # Redis answers after a moment that nothing came.
            calls = [asyncio.ensure_future(client.blpop([f"none{n}"], 0.1)) for n in range(8)]
            await asyncio.sleep(0.05)
            time.sleep(3 * TIMEOUT_SECONDS)  # noqa: ASYNC251 - it is meant to block the loop
            # The breaker is closed: nothing refuses the next one.
            return [*await asyncio.gather(*calls), await client.echo("next")]

    assert asyncio.run(answers()) == [*[None] * 8, "next"]


def test_a_redis_that_hangs_is_not_waited_for(
    connect_impatiently: Callable[[], Redis], redis_client: "redis.Redis"
) -> None:
    async def wait() -> float:
        async with connect_impatiently() as client:
            await client.ping()
            redis_client.client_pause(round(10 * TIMEOUT_SECONDS * 1000))
            began = time.monotonic()
            with pytest.raises(redis.TimeoutError):
                await client.ping()
            return time.monotonic() - began

    assert TIMEOUT_SECONDS <= asyncio.run(wait()) < 10 * TIMEOUT_SECONDS
    redis_client.ping()  # it answers when the pause is over, as the next test needs it
