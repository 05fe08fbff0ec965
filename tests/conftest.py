"""Fixtures that every kind of test may ask for."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from embedded.redis import redis_command
from shared.ledger import Ledger, connect
from shared.settings import LedgerSettings, RedisSettings
from tests.processes import free_port, running


@pytest.fixture(scope="session")
def redis_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    """A real Redis of this session."""
    directory, port = tmp_path_factory.mktemp("redis"), free_port()
    log = directory / "redis.log"
    with running(redis_command(port, directory), port=port, log=log):
        yield RedisSettings.model_validate({"url": f"redis://127.0.0.1:{port}/0"})


@pytest.fixture
def redis_client(redis_settings: RedisSettings) -> Iterator["redis.Redis"]:
    """A client of the session's Redis."""
    client = connect(redis_settings)
    yield client
    client.close()


@pytest.fixture
def ledger_settings() -> LedgerSettings:
    """Settings of a ledger that nobody else uses, with times that tests can wait for."""
    return LedgerSettings(
        prefix=f"test-{uuid.uuid4().hex}",
        lease_seconds=1,
        republish_seconds=0.2,
        backoff_seconds=0.1,
    )


@pytest.fixture
def ledger(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Ledger:
    """An empty ledger."""
    return Ledger(redis_client, ledger_settings)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty directory."""
    return tmp_path
