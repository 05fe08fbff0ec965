"""Many who wait for jobs at once, and a wait that cannot be had."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import redis

from api.app import create_app
from shared.jobs import JobState
from shared.ledger import Ledger
from shared.settings import LedgerSettings, RedisSettings, Settings
from tests.processes import wait_until

DOWNLOAD = {"model_name": "org/model"}
#: More than the connections that redis-py gives a pool by default.
MANY = 120


@asynccontextmanager
async def front(
    redis_settings: RedisSettings, ledger: LedgerSettings
) -> AsyncIterator[httpx.AsyncClient]:
    """Call a front in this process, any number of times at once."""
    app = create_app(Settings(redis=redis_settings, ledger=ledger))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://front", timeout=60
    ) as client:
        yield client
        await app.state.services.events.close()


def _reading(client: "redis.Redis") -> int:
    return sum(each["cmd"] == "xread" for each in client.client_list())


def test_more_wait_at_once_than_a_pool_usually_holds(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    redis_client: "redis.Redis",
) -> None:
    async def answers() -> list[httpx.Response]:
        async with front(redis_settings, ledger_settings) as client:
            job_id = (await client.post("/models/download", json=DOWNLOAD)).json()["job_id"]
            calls = [
                asyncio.create_task(client.get(f"/jobs/{job_id}?wait=60")) for _ in range(MANY)
            ]
            await asyncio.to_thread(
                wait_until,
                lambda: _reading(redis_client) >= MANY or any(call.done() for call in calls),
            )
            job = ledger.claim(job_id, "cpu@a")
            assert job is not None
            ledger.finish(job, JobState.SUCCEEDED, result={})
            return await asyncio.gather(*calls)

    assert [each.json().get("state") for each in asyncio.run(answers())] == ["succeeded"] * MANY


def test_a_submit_whose_wait_cannot_be_had_is_accepted_all_the_same(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.ledger.events.MAX_CONNECTIONS", 1)

    async def answers() -> list[httpx.Response]:
        async with front(redis_settings, ledger_settings) as client:
            calls = (client.post("/models/download?wait=1", json=DOWNLOAD) for _ in range(3))
            return await asyncio.gather(*calls)

    accepted = asyncio.run(answers())
    assert [each.status_code for each in accepted] == [202] * 3
    assert {each.json()["job_id"] for each in accepted} == {job.id for job in ledger.page()[0]}
