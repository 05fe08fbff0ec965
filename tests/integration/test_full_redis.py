"""A Redis that is full, or cannot write: what is under way ends, and the rest hears of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shared.errors import UnavailableError
from shared.jobs import Job, JobState
from shared.ledger import Ledger
from shared.settings import LedgerSettings
from tests import claims
from tests.claims import download

MIB = 2**20
#: Some moment, in milliseconds.
NOON = 10**12


@pytest.fixture
def ledger(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch
) -> Ledger:
    """A ledger that spares nothing for having just ended."""
    monkeypatch.setattr("shared.ledger.scripts.SPARED_SECONDS", 0)
    return Ledger(redis_client, ledger_settings)


@pytest.fixture
def ended(ledger: Ledger) -> list[str]:
    """Jobs that have left 8 MiB of results, the oldest first."""
    jobs = [ledger.accept(download(f"m{number}"))[0] for number in range(16)]
    for job in jobs:
        ledger.finish(claim(ledger, job), JobState.SUCCEEDED, result={"text": "x" * (MIB // 2)})
    return [job.id for job in jobs]


@pytest.fixture
def memory(redis_client: "redis.Redis") -> Iterator[Any]:
    """Bounds the memory of Redis to a part of what it uses, for the length of a test."""

    def bound(share: float) -> None:
        info: Any = redis_client.info("memory")
        redis_client.config_set("maxmemory", round(info["used_memory"] * share))

    yield bound
    redis_client.config_set("maxmemory", 0)


def claim(ledger: Ledger, job: Job) -> Job:
    return claims.claim(ledger, job.id)


def test_the_oldest_make_room_before_it_is_full(
    ledger: Ledger, ended: list[str], memory: Any
) -> None:
    waiting = ledger.accept(download("m"))[0].id
    memory(1.3)
    assert ledger.reconcile().crowded_out == 0
    memory(1.1)
    assert ledger.reconcile().crowded_out == len(ended)
    assert ledger.reconcile().crowded_out == 0
    assert [job.id for job in ledger.page()[0]] == [waiting]


def test_who_ended_first_goes_first_whenever_it_was_made(
    redis_client: "redis.Redis",
    ledger_settings: LedgerSettings,
    memory: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.ledger.scripts.SPARED_SECONDS", 0)
    monkeypatch.setattr("shared.ledger.ledger.RECONCILED", 1)
    monkeypatch.setattr("shared.ledger.ledger.RECONCILE_CALLS", 1)
    clock = f"{ledger_settings.prefix}:clock"
    lua = f"tonumber(redis.call('GET', '{clock}'))"
    ticking = Ledger(redis_client, ledger_settings, clock=lua)
    redis_client.set(clock, NOON)
    long, *short = [claim(ticking, ticking.accept(download("m"))[0]) for _ in range(3)]
    for job in (*short, long):
        redis_client.incr(clock)
        ticking.finish(job, JobState.SUCCEEDED, result={})
    memory(1.1)
    assert ticking.reconcile().crowded_out == 1
    assert {job.id for job in ticking.page()[0]} == {long.id, short[1].id}


def test_who_has_just_ended_is_spared(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings, memory: Any
) -> None:
    ledger = Ledger(redis_client, ledger_settings)
    ledger.finish(claim(ledger, ledger.accept(download("m"))[0]), JobState.SUCCEEDED, result={})
    memory(1.1)
    assert ledger.reconcile().crowded_out == 0


def test_a_running_batch_keeps_what_its_parts_gave(ledger: Ledger, memory: Any) -> None:
    parent = ledger.accept(download("", queue=""), [download("a"), download("b")])[0]
    done = claim(ledger, ledger.get(parent.children[0]))
    ledger.finish(done, JobState.SUCCEEDED, result={"n": 1})
    memory(1.1)
    assert ledger.reconcile().crowded_out == 0
    ledger.finish(claim(ledger, ledger.get(parent.children[1])), JobState.SUCCEEDED, result={})
    assert ledger.reconcile().crowded_out == 3


def test_full_it_takes_no_job_and_ends_those_that_it_has(
    ledger: Ledger, ended: list[str], memory: Any
) -> None:
    running = claim(ledger, ledger.accept(download("other"))[0])
    queued = ledger.accept(download("queued"))[0]
    memory(0.9)
    with pytest.raises(UnavailableError) as refused:
        ledger.accept(download("more"))
    assert refused.value.specific_code == "redis_unavailable"
    assert ledger.counts()
    assert ledger.renew("cpu@a", [running]) == {running.id: "ok"}
    assert ledger.report_text(running, 1, "x"), "or its end would wait for the text"
    assert ledger.finish(running, JobState.SUCCEEDED, result={"text": "x"}).kept
    assert ledger.requeue(claim(ledger, queued), counts=False).kept
    assert ledger.reconcile().crowded_out == len(ended) + 1
    memory(2)
    assert ledger.accept(download("more"))


def test_a_disk_that_is_full_passes(ledger: Ledger, redis_client: "redis.Redis") -> None:
    running = claim(ledger, ledger.accept(download("m"))[0])
    redis_client.config_set("min-replicas-to-write", 1)  # refuses writes just as MISCONF does
    try:
        for attempt in (
            lambda: ledger.accept(download("n")),
            lambda: ledger.renew("cpu@a", [running]),
        ):
            with pytest.raises(UnavailableError, match="NOREPLICAS"):
                attempt()
    finally:
        redis_client.config_set("min-replicas-to-write", 0)
    assert ledger.renew("cpu@a", [running]) == {running.id: "ok"}
