"""The ledger while clocks step, Redis stands still or forgets, and replies are lost."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from embedded.redis import redis_command
from shared.errors import UnavailableError
from shared.jobs import JobState
from shared.ledger import AsyncLedger, Claimed, Filter, JobEvent, Ledger, connect, connect_async
from shared.settings import LedgerSettings, RedisSettings
from tests.claims import claim, download, want
from tests.processes import free_port, running, wait_until
from tests.tcp_proxy import tcp_proxy

CLOCK = "tonumber(redis.call('GET', KEYS[1] .. ':clock'))"
#: Some moment, in milliseconds.
NOON = 10**12


def address(port: int) -> RedisSettings:
    return RedisSettings.model_validate({"url": f"redis://127.0.0.1:{port}/0"})


# ── clocks ───────────────────────────────────────────────────────────────────


@pytest.fixture
def step(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> tuple[Ledger, Callable[[float], object]]:
    """A ledger with leases of 15 s, whose clock the test moves by seconds."""
    settings = ledger_settings.model_copy(update={"lease_seconds": 15})
    key = f"{settings.prefix}:2:clock"
    redis_client.set(key, NOON)
    move = lambda seconds: redis_client.incrby(key, round(seconds * 1000))  # noqa: E731
    return Ledger(redis_client, settings, CLOCK), move


def test_a_clock_that_steps_by_more_than_a_lease_takes_no_job_away(
    step: tuple[Ledger, Callable[[float], object]],
) -> None:
    ledger, move = step
    jobs = [claim(ledger, ledger.accept(download("m"))[0].id) for _ in range(5)]
    ledger.reconcile()
    for seconds in (16, -3600, 7200):
        move(seconds)
        assert ledger.reconcile().lost_leases == 0
        assert set(ledger.renew("cpu@a", jobs).values()) == {"ok"}
    for _ in range(20):
        move(1)
        ledger.renew("cpu@a", jobs[1:])
        ledger.reconcile()
    crashes = [ledger.get(job.id).crashes for job in jobs]
    assert crashes == [1, 0, 0, 0, 0], "a worker that is dead is found soon after"


def test_after_a_step_back_a_dead_worker_is_found_within_two_leases(
    step: tuple[Ledger, Callable[[float], object]],
) -> None:
    ledger, move = step
    job = claim(ledger, ledger.accept(download("m"))[0].id)
    ledger.reconcile()
    move(-3600)
    for _ in range(31):
        ledger.reconcile()
        move(1)
    assert ledger.get(job.id).crashes == 1


# ── Redis ────────────────────────────────────────────────────────────────────


class Beats:
    """The heartbeats and the reconciliations of some workers, each with a job."""

    def __init__(self, port: int, settings: LedgerSettings, count: int) -> None:
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        ledger = Ledger(connect(address(port)), settings)
        self.jobs = [claim(ledger, ledger.accept(download("m"))[0].id) for _ in range(count)]
        for job in self.jobs:
            own = Ledger(connect(address(port)), settings)

            def beat(own: Ledger = own, job: Any = job) -> None:
                while not self._stopped.wait(settings.heartbeat_seconds):
                    for call in (lambda: own.renew(job.id, [job]), own.reconcile):
                        try:
                            call()
                        except UnavailableError:
                            continue

            self._threads.append(threading.Thread(target=beat))
        self.ledger = ledger

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat for the length of a block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join()

    def beats_again(self) -> bool:
        """Return whether all leases were renewed since."""
        now = time.time()
        leases = [self.ledger.get(job.id).lease_until for job in self.jobs]
        return all(lease is not None and lease.timestamp() > now for lease in leases)

    def lost(self) -> int:
        """Return how often a job was taken for lost."""
        return self.ledger.counts().total(JobEvent.LOST)


@pytest.fixture
def quick(ledger_settings: LedgerSettings) -> LedgerSettings:
    return ledger_settings.model_copy(update={"lease_seconds": 2, "heartbeat_seconds": 0.1})


def test_a_redis_that_stands_still_for_longer_than_a_lease_takes_no_job_away(
    quick: LedgerSettings, tmp_path: Path
) -> None:
    port = free_port()
    with running(redis_command(port, tmp_path), port=port, log=tmp_path / "log") as process:
        beats = Beats(port, quick, 4)
        with beats.beating():
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(2 * quick.lease_seconds)
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(2 * quick.lease_seconds)
            wait_until(beats.beats_again, what="the leases are renewed")
            assert beats.lost() == 0


def test_a_redis_that_restarts_after_longer_than_a_lease_takes_no_job_away(
    quick: LedgerSettings, tmp_path: Path
) -> None:
    port = free_port()
    command = redis_command(port, tmp_path)
    command[command.index("--appendfsync") + 1] = "always"
    with running(command, port=port, log=tmp_path / "log") as process:
        beats = Beats(port, quick, 4)
        with beats.beating():
            time.sleep(0.5)
            process.kill()
            process.wait()
            time.sleep(2 * quick.lease_seconds)
            with running(command, port=port, log=tmp_path / "log"):
                time.sleep(2 * quick.lease_seconds)
                wait_until(beats.beats_again, what="the leases are renewed")
                assert beats.lost() == 0
                beats._stopped.set()


def test_two_claims_with_one_fence_are_told_apart_by_their_nonce(
    ledger_settings: LedgerSettings, tmp_path: Path
) -> None:
    ports = [free_port(), free_port()]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (
        [
            *redis_command(port, tmp_path / d),
            *("--repl-diskless-sync-delay", "0"),
            *("--appendonly", "no"),
        ]
        for port, d in zip(ports, "ab", strict=True)
    )
    with (
        running(first, port=ports[0], log=tmp_path / "log"),
        running(second, port=ports[1], log=tmp_path / "log"),
    ):
        old, new = (Ledger(connect(address(port)), ledger_settings) for port in ports)
        replica = redis.Redis(port=ports[1], decode_responses=True)
        job = old.accept(download("m"))[0]
        replica.replicaof("127.0.0.1", str(ports[0]))
        there = f"{ledger_settings.prefix}:2:job:{job.id}"
        wait_until(lambda: replica.exists(there), what="the replica has the job")
        replica.replicaof("NO", "ONE")  # from now on it misses what happens
        zombie = claim(old, job.id, "cpu@one")
        owner = claim(new, job.id, "cpu@two")
        assert zombie.fence == owner.fence
        assert new.renew("cpu@one", [zombie]) == {job.id: "lost"}
        assert not new.finish(zombie, JobState.SUCCEEDED, result={"by": "one"}).kept
        assert new.renew("cpu@two", [owner]) == {job.id: "ok"}
        assert new.finish(owner, JobState.SUCCEEDED, result={"by": "two"}).kept
        replica.close()


def test_a_claim_whose_reply_was_lost_is_repeated_and_costs_nothing(ledger: Ledger) -> None:
    jobs = [ledger.accept(download("m"))[0] for _ in range(2)]
    wanted = want("cpu@a", "downloads")
    ledger.claim(wanted)
    assert [job.id for job in ledger.claim(wanted).jobs] == [jobs[0].id]
    ended = ledger.finish(ledger.claim(wanted).jobs[0], JobState.SUCCEEDED, result={})
    assert (ended.kept, ended.claimed) == (True, Claimed())
    following = want("cpu@a", "downloads")
    other = claim(ledger, jobs[1].id, "cpu@b")
    ledger.requeue(other, want=following)
    again = ledger.claim(following).jobs[0]
    assert (again.id, again.attempts, again.crashes) == (jobs[1].id, 2, 0)
    for _ in range(2):
        assert ledger.finish(again, JobState.SUCCEEDED, result={}, want=want("cpu@a", "downloads"))
    assert ledger.counts().total(JobEvent.SUCCEEDED) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cancel_and_a_retry_whose_replies_were_lost_are_no_conflict(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    ledger: Ledger,
    asynchronous: bool,
) -> None:
    job_id = ledger.accept(download("m"))[0].id
    port = urlsplit(redis_settings.url.get_secret_value()).port
    assert port is not None

    def states(through: RedisSettings, lose_next_answer: Callable[[], None]) -> list[JobState]:
        blocking = Ledger(connect(through), ledger_settings)
        blocking.ping()
        lose_next_answer()
        cancelled = blocking.cancel(job_id)
        lose_next_answer()
        return [cancelled.state, blocking.revive(job_id).state]

    async def async_states(
        through: RedisSettings, lose_next_answer: Callable[[], None]
    ) -> list[JobState]:
        client = connect_async(through)
        async_ledger = AsyncLedger(client, ledger_settings)
        await async_ledger.ping()
        lose_next_answer()
        cancelled = await async_ledger.cancel(job_id)
        lose_next_answer()
        revived = await async_ledger.revive(job_id)
        await client.aclose()
        return [cancelled.state, revived.state]

    with tcp_proxy(port) as proxy:
        how = (address(proxy.port), proxy.lose_next_answer)
        seen = asyncio.run(async_states(*how)) if asynchronous else states(*how)
    assert seen == [JobState.CANCELLED, JobState.QUEUED]


def test_a_user_of_redis_who_may_not_ask_for_its_memory_can_reconcile(
    redis_client: "redis.Redis", redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> None:
    rights = ("on", ">pw", "~*", "&*", "+@all", "-@dangerous")
    redis_client.execute_command("ACL", "SETUSER", "app", *rights)  # type: ignore[no-untyped-call]
    url = redis_settings.url.get_secret_value().replace("redis://", "redis://app:pw@")
    client = connect(RedisSettings.model_validate({"url": url}))
    try:
        ledger = Ledger(client, ledger_settings)
        job = claim(ledger, ledger.accept(download("m"))[0].id)
        wait_until(lambda: ledger.reconcile().lost_leases, what="the lease is lost")
        assert ledger.get(job.id).crashes == 1
    finally:
        client.close()
        redis_client.execute_command("ACL", "DELUSER", "app")  # type: ignore[no-untyped-call]


# ── listings and large inputs ────────────────────────────────────────────────


def test_a_listing_answers_no_empty_page_while_more_follow(ledger: Ledger) -> None:
    rare = [claim(ledger, ledger.accept(download("rare", submitter="a"))[0].id) for _ in range(3)]
    for number in range(300):
        job = claim(ledger, ledger.accept(download(f"m{number % 3}", submitter="a"))[0].id)
        ledger.finish(job, JobState.SUCCEEDED, result={})
    for wanted in (
        Filter(state=JobState.RUNNING),
        Filter(state=JobState.RUNNING, submitter="a"),
        Filter(state=JobState.RUNNING, submitter="a", model="rare"),
        Filter(model="rare"),
    ):
        newest, cursor = ledger.page(wanted, limit=2)
        rest, end = ledger.page(wanted, limit=2, cursor=cursor)
        assert [job.id for job in newest + rest] == [job.id for job in reversed(rare)]
        assert end is None
    assert ledger.page(Filter(state=JobState.FAILED, submitter="a")) == ([], None)


def test_a_listing_leaves_large_requests_and_results_out(
    ledger: Ledger, redis_client: "redis.Redis"
) -> None:
    job = ledger.accept(download("m", request={"x": "y" * 50_000}))[0]
    ledger.finish(claim(ledger, job.id), JobState.SUCCEEDED, result={"text": "z" * 50_000})
    before: Any = redis_client.info("stats")
    ((listed,), _) = ledger.page()
    after: Any = redis_client.info("stats")
    assert (listed.id, listed.request, listed.result) == (job.id, {}, None)
    assert after["total_net_output_bytes"] - before["total_net_output_bytes"] < 30_000
    shown = ledger.get(job.id)
    assert (len(shown.request["x"]), len((shown.result or {})["text"])) == (50_000, 50_000)


def test_a_large_input_is_kept_apart_and_freed_when_its_job_ends(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    request = {"task": "vlm", "image": "A" * 8_000_000, "prompt": "?"}
    redis_client.config_set("slowlog-log-slower-than", 0)
    redis_client.slowlog_reset()
    job = ledger.accept(download("m", request=request))[0]
    scripts = [e["duration"] for e in redis_client.slowlog_get(10) if b"EVAL" in e["command"][:10]]
    redis_client.config_set("slowlog-log-slower-than", 10_000)
    assert max(scripts) < 1_000_000, "microseconds for which Redis served nobody else"
    assert len(str(ledger.get(job.id).request)) < 2000
    claimed = claim(ledger, job.id)
    assert claimed.request == request
    assert redis_client.exists(f"{ledger_settings.prefix}:2:input:{job.id}")
    ledger.finish(claimed, JobState.FAILED)
    assert not redis_client.exists(f"{ledger_settings.prefix}:2:input:{job.id}")
    assert ledger.get(job.id).request["prompt"] == "?"
