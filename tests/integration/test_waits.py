"""Many who wait for jobs at once, ends whose push is lost, and a wait that is impossible."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import redis

from api.app import create_app
from shared.errors import UnavailableError
from shared.jobs import JobState
from shared.ledger import AsyncLedger, Ends, Ledger
from shared.settings import LedgerSettings, RedisSettings, Settings
from tests.claims import claim
from tests.processes import wait_until

DOWNLOAD = {"model_name": "org/model"}
#: More than a server takes in one go.
MANY = 120
#: A wait ends this long after its time at the latest.
LATE_SECONDS = 1.0


@asynccontextmanager
async def front(
    redis_settings: RedisSettings, ledger: LedgerSettings
) -> AsyncIterator[httpx.AsyncClient]:
    """Call an API in this process, any number of times at once."""
    app = create_app(Settings(redis=redis_settings, ledger=ledger))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://front", timeout=60
    ) as client:
        yield client
        await app.state.services.close()


def _waiters(client: "redis.Redis", ledger: LedgerSettings, job_id: str) -> int:
    """Return how many API processes a job tells of its end."""
    return len(str(client.hget(f"{ledger.prefix}:2:job:{job_id}", "waiters") or "").split())


def _end(ledger: Ledger, job_id: str) -> None:
    ledger.finish(claim(ledger, job_id), JobState.SUCCEEDED, result={})


def test_many_wait_at_once_for_one_push(
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
                wait_until, lambda: _waiters(redis_client, ledger_settings, job_id) == 1
            )
            await asyncio.to_thread(_end, ledger, job_id)
            return await asyncio.gather(*calls)

    assert [each.json().get("state") for each in asyncio.run(answers())] == ["succeeded"] * MANY


def test_a_submit_whose_job_a_failover_lost_is_to_be_sent_again(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    redis_client: "redis.Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.ledger.ends.POLL_SECONDS", 0.1)

    async def answer() -> httpx.Response:
        async with front(redis_settings, ledger_settings) as client:
            call = asyncio.create_task(client.post("/models/download?wait=60", json=DOWNLOAD))
            await asyncio.to_thread(wait_until, lambda: ledger.page()[0])
            for key in redis_client.scan_iter(f"{ledger_settings.prefix}:*"):
                redis_client.delete(key)
            return await call

    refused = asyncio.run(answer())
    assert (refused.status_code, refused.json()["code"]) == (503, "redis_unavailable")
    assert int(refused.headers["retry-after"]) > 0


def test_an_end_whose_push_is_lost_is_learnt_all_the_same(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    redis_client: "redis.Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ends, "_take", lambda *_: None)
    monkeypatch.setattr("shared.ledger.ends.POLL_SECONDS", 0.1)

    async def answer() -> httpx.Response:
        async with front(redis_settings, ledger_settings) as client:
            job_id = (await client.post("/models/download", json=DOWNLOAD)).json()["job_id"]
            call = asyncio.create_task(client.get(f"/jobs/{job_id}?wait=60"))
            await asyncio.to_thread(
                wait_until, lambda: _waiters(redis_client, ledger_settings, job_id) == 1
            )
            await asyncio.to_thread(_end, ledger, job_id)
            return await call

    assert asyncio.run(answer()).json()["state"] == "succeeded"


def test_a_broken_subscription_is_made_again(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    redis_client: "redis.Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Only the new subscription can tell of the end.
    monkeypatch.setattr("shared.ledger.ends.POLL_SECONDS", 600.0)

    async def answer() -> httpx.Response:
        async with front(redis_settings, ledger_settings) as client:
            job_id = (await client.post("/models/download", json=DOWNLOAD)).json()["job_id"]
            call = asyncio.create_task(client.get(f"/jobs/{job_id}?wait=60"))
            await asyncio.to_thread(
                wait_until, lambda: _waiters(redis_client, ledger_settings, job_id) == 1
            )
            await asyncio.to_thread(redis_client.client_kill_filter, _type="pubsub")
            await asyncio.to_thread(_end, ledger, job_id)
            return await call

    assert asyncio.run(answer()).json()["state"] == "succeeded"


def test_waits_end_in_time_whatever_they_meet(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> None:
    """Their ends fall upon the polls and upon each other."""

    async def lateness() -> list[float]:
        async with front(redis_settings, ledger_settings) as client:
            job_id = (await client.post("/models/download", json=DOWNLOAD)).json()["job_id"]

            async def late(seconds: float) -> float:
                began = time.monotonic()
                answer = await client.get(f"/jobs/{job_id}?wait={seconds}")
                assert answer.json().get("state") == "queued", answer.text
                return time.monotonic() - began - seconds

            asked = [0.5 + 0.01 * number for number in range(200)]
            return list(await asyncio.gather(*map(late, asked)))

    late = asyncio.run(lateness())
    assert min(late) > -0.01
    assert max(late) < 10 * LATE_SECONDS


def test_a_submit_whose_wait_is_impossible_is_accepted_all_the_same(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object) -> None:
        raise UnavailableError("Redis does not answer", code="redis_unavailable", service="Redis")

    monkeypatch.setattr(AsyncLedger, "get", away)

    async def answers() -> list[httpx.Response]:
        async with front(redis_settings, ledger_settings) as client:
            calls = (client.post("/models/download?wait=0.1", json=DOWNLOAD) for _ in range(3))
            return await asyncio.gather(*calls)

    accepted = asyncio.run(answers())
    assert [each.status_code for each in accepted] == [202] * 3
    assert {each.json()["job_id"] for each in accepted} == {job.id for job in ledger.page()[0]}
