"""Many who wait for jobs at once, ends whose push is lost, and a wait that is impossible."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
import redis

from api.app import create_app
from shared.errors import UnavailableError
from shared.jobs import JobState
from shared.ledger import AsyncLedger, Ends, Ledger, connect_async
from shared.settings import LedgerSettings, RedisSettings, Settings
from tests.claims import claim, download
from tests.processes import wait_until

DOWNLOAD = {"model_name": "org/model"}
#: More than a server takes in one go.
MANY = 120
#: A wait ends this long after its time at the latest.
LATE_SECONDS = 1.0
#: A wait makes up to so many times as many calls of Redis as a look at a job.
BUSY_FACTOR = 3


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


def _channels(client: "redis.Redis", ledger: LedgerSettings, job_id: str) -> list[str]:
    """Return the channels of the API processes that a job tells of its end."""
    return str(client.hget(f"{ledger.prefix}:2:job:{job_id}", "waiters") or "").split()


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
                wait_until, lambda: len(_channels(redis_client, ledger_settings, job_id)) == 1
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
                wait_until, lambda: len(_channels(redis_client, ledger_settings, job_id)) == 1
            )
            await asyncio.to_thread(_end, ledger, job_id)
            return await call

    assert asyncio.run(answer()).json()["state"] == "succeeded"


@pytest.mark.parametrize("how", ["cut", "junk"])
def test_a_broken_subscription_is_made_again(
    how: str,
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
                wait_until, lambda: len(_channels(redis_client, ledger_settings, job_id)) == 1
            )
            if how == "cut":
                await asyncio.to_thread(redis_client.client_kill_filter, _type="pubsub")
            else:
                (channel,) = _channels(redis_client, ledger_settings, job_id)
                redis_client.publish(channel, "no JSON")
            await asyncio.to_thread(_end, ledger, job_id)
            return await call

    assert asyncio.run(answer()).json()["state"] == "succeeded"


#: Returns once a job is looked at (None) or was waited for so many seconds.
Ask = Callable[[float | None], Awaitable[object]]


async def lateness(ask: Ask, waits: Sequence[float]) -> float:
    """Return by how much the latest of many waits is late, beyond what the calls take anyway."""

    async def late(seconds: float | None) -> float:
        began = time.monotonic()
        await ask(seconds)
        return time.monotonic() - began - (seconds or 0)

    without_wait = await asyncio.gather(*(late(None) for _ in waits))
    late_by = await asyncio.gather(*map(late, waits))
    assert min(late_by) > -0.01
    return max(late_by) - BUSY_FACTOR * max(without_wait)


def test_waits_end_in_time_whatever_they_meet(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> None:
    """Their ends fall upon the polls and upon each other."""

    async def late() -> float:
        async with front(redis_settings, ledger_settings) as client:
            job_id = (await client.post("/models/download", json=DOWNLOAD)).json()["job_id"]

            async def ask(seconds: float | None) -> None:
                wait = "" if seconds is None else f"?wait={seconds}"
                answer = await client.get(f"/jobs/{job_id}{wait}")
                assert answer.json().get("state") == "queued", answer.text

            return await lateness(ask, [0.5 + 0.02 * number for number in range(60)])

    assert asyncio.run(late()) < LATE_SECONDS


def test_no_wait_is_held_for_ever(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many waits end in the moment in which a call of Redis begins or ends."""
    monkeypatch.setattr("shared.ledger.ends.POLL_SECONDS", 0.05)
    jobs = [ledger.accept(download("m"))[0].id for _ in range(50)]

    async def late() -> float:
        client = connect_async(redis_settings)
        async_ledger = AsyncLedger(client, ledger_settings)
        ends = Ends(connect_async(redis_settings), async_ledger, ledger_settings)
        asked = itertools.cycle(jobs)

        async def ask(seconds: float | None) -> None:
            job_id = next(asked)
            if seconds is None:
                await async_ledger.get(job_id)
            else:
                assert (await ends.ended(job_id, seconds)).state is JobState.QUEUED

        try:
            return await lateness(ask, [0.02 + 0.002 * number for number in range(200)])
        finally:
            await ends.close()
            await client.aclose()

    assert asyncio.run(late()) < LATE_SECONDS


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
