"""A failover behind one address: the demoted primary keeps its connections and refuses writes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from api.circuit import connect_async_with_breaker, connect_with_breaker
from embedded.redis import redis_command
from shared.errors import UnavailableError
from shared.jobs import JobKind
from shared.ledger import AsyncLedger, Ledger, NewJob, connect
from shared.settings import LedgerSettings, RedisSettings
from tests.processes import free_port, running, wait_until
from tests.tcp_proxy import tcp_proxy


def download() -> NewJob:
    return NewJob(JobKind.DOWNLOAD, {"model_name": "m"}, "downloads", "m", max_attempts=3)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The ports of a primary and of its replica, in step."""
    with ExitStack() as servers:
        ports = free_port(), free_port()
        for number, port in enumerate(ports):
            directory = tmp_path / str(number)
            directory.mkdir()
            command = redis_command(port, directory)
            server = servers.enter_context(running(command, port=port, log=directory / "log"))
            # A replica that writes its first append-only file does not end on SIGTERM.
            servers.callback(server.kill)
        replica = redis.Redis(port=ports[1])
        replica.replicaof("127.0.0.1", str(ports[0]))
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
        replica.close()
        yield ports


@pytest.mark.parametrize("connected", [connect, connect_with_breaker], ids=["worker", "API"])
def test_a_demoted_primary_is_left_for_the_new_one(
    pair: tuple[int, int],
    ledger_settings: LedgerSettings,
    connected: Callable[[RedisSettings], "redis.Redis"],
) -> None:
    old, new = pair
    with tcp_proxy(old) as proxy, ExitStack() as clients:
        url = {"url": f"redis://127.0.0.1:{proxy.port}/0"}
        client = connected(RedisSettings.model_validate(url))
        clients.callback(client.close)
        ledger = Ledger(client, ledger_settings)
        ledger.accept(download())

        with redis.Redis(port=new) as promoted, redis.Redis(port=old) as demoted:
            promoted.replicaof("NO", "ONE")
            demoted.replicaof("127.0.0.1", str(new))
        with pytest.raises(UnavailableError, match="READONLY"):
            ledger.accept(download())
        # The address leads to the new primary from now on; connections to the old one live.
        proxy.lead_to(new)
        ledger.accept(download())
        pipe = client.pipeline(transaction=False)
        pipe.set("written", "1")
        pipe.execute()
        with redis.Redis(port=new) as promoted:
            assert promoted.get("written") == b"1"


def test_calls_that_go_together_leave_a_demoted_primary_too(
    pair: tuple[int, int], ledger_settings: LedgerSettings
) -> None:
    old, new = pair
    with tcp_proxy(old) as proxy:
        url = {"url": f"redis://127.0.0.1:{proxy.port}/0"}

        async def calling() -> None:
            client = connect_async_with_breaker(RedisSettings.model_validate(url))
            ledger = AsyncLedger(client, ledger_settings)
            await ledger.accept(download())
            with redis.Redis(port=new) as promoted, redis.Redis(port=old) as demoted:
                promoted.replicaof("NO", "ONE")
                demoted.replicaof("127.0.0.1", str(new))
            with pytest.raises(UnavailableError, match="READONLY"):
                await ledger.accept(download())
            proxy.lead_to(new)
            # A connection to the old one is open, and was used a moment ago.
            await asyncio.gather(*(ledger.accept(download()) for _ in range(3)))
            await client.aclose()

        asyncio.run(calling())
