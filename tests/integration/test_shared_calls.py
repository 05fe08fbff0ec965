"""Calls of an API process that are made at the same time go to Redis together."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis

from shared.errors import ConflictError, NotFoundError, UnavailableError
from shared.jobs import JobState
from shared.ledger import AsyncLedger, Ledger, connect_async
from shared.ledger.async_ledger import SharedCalls
from shared.settings import LedgerSettings, RedisSettings
from tests.claims import download
from tests.processes import free_port

T = TypeVar("T")


def run(
    redis_settings: RedisSettings,
    settings: LedgerSettings,
    calls: Callable[[AsyncLedger], Awaitable[T]],
) -> T:
    """Return what calls of a ledger return, which has an event loop for them alone."""

    async def calling() -> T:
        client = connect_async(redis_settings)
        try:
            return await calls(AsyncLedger(client, settings))
        finally:
            await client.aclose()

    return asyncio.run(calling())


def test_each_of_many_calls_gets_its_own_answer(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    redis_client: "redis.Redis",
) -> None:
    jobs = [download(f"m{number}") for number in range(300)]

    def reads() -> int:
        return int(redis_client.info("stats")["total_reads_processed"])

    ledger.cancel(ledger.accept(download("m"))[0].id)  # Redis has the script now
    before = reads()
    accepted = run(
        redis_settings,
        ledger_settings,
        lambda ledger: asyncio.gather(*(ledger.accept(job) for job in jobs)),
    )
    assert reads() - before < 100, "calls that wait at the same time are read together"
    assert [job.id for job, _ in accepted] == [job.id for job in jobs]
    assert {ledger.get(job.id).model for job in jobs} == {job.model for job in jobs}


def test_an_error_is_only_its_callers(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, ledger: Ledger
) -> None:
    ended, queued = (ledger.accept(download(name))[0] for name in ("a", "b"))
    ledger.cancel(ended.id)
    answers = run(
        redis_settings,
        ledger_settings,
        lambda ledger: asyncio.gather(
            ledger.cancel(ended.id),
            ledger.cancel("no-such"),
            ledger.cancel(queued.id),
            return_exceptions=True,
        ),
    )
    assert isinstance(answers[0], ConflictError)
    assert isinstance(answers[1], NotFoundError)
    assert not isinstance(answers[2], BaseException)
    assert answers[2].state is JobState.CANCELLED


def test_who_goes_away_takes_no_others_answer(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> None:
    async def called(ledger: AsyncLedger) -> list[object]:
        calls = [asyncio.create_task(ledger.accept(download(f"m{n}"))) for n in range(20)]
        await asyncio.sleep(0)  # each makes its call
        calls[3].cancel()
        return list(await asyncio.gather(*calls, return_exceptions=True))

    answers = run(redis_settings, ledger_settings, called)
    assert isinstance(answers.pop(3), asyncio.CancelledError)
    assert all(isinstance(answer, tuple) for answer in answers)


def test_without_redis_all_who_wait_are_told(ledger_settings: LedgerSettings) -> None:
    nobody = RedisSettings.model_validate({"url": f"redis://127.0.0.1:{free_port()}"})
    answers = run(
        nobody,
        ledger_settings,
        lambda ledger: asyncio.gather(
            *(ledger.accept(download(f"m{n}")) for n in range(100)), return_exceptions=True
        ),
    )
    assert all(isinstance(answer, UnavailableError) for answer in answers)


class _Answers:
    """A client, and its pipelines, that answers all calls at one moment."""

    def __init__(self) -> None:
        self.come = asyncio.Event()
        self.executions = asyncio.Queue[None]()

    def pipeline(self, **_: object) -> "_Answers":
        return self

    def execute_command(self, *command: object) -> None:
        """Take a command."""

    async def execute(self, **_: object) -> list[str]:
        self.executions.put_nowait(None)
        await self.come.wait()
        return ["answer"]


def test_a_call_that_follows_two_answers_at_once_is_sent() -> None:
    async def calling() -> list[Any]:
        answers = _Answers()
        calls = SharedCalls(answers)  # type: ignore[arg-type]

        async def twice() -> Any:
            await calls.send(("GET", "a"))
            return await calls.send(("GET", "b"))

        tasks = [asyncio.create_task(twice())]
        await answers.executions.get()
        tasks.append(asyncio.create_task(calls.send(("GET", "c"))))
        await answers.executions.get()
        answers.come.set()
        async with asyncio.timeout(10):
            return await asyncio.gather(*tasks)

    assert asyncio.run(calling()) == ["answer", "answer"]
