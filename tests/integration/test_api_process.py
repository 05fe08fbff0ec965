"""The front as a process: what its health check says of it, and how it starts without Redis."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from embedded.redis import redis_command
from shared.settings import RedisSettings
from tests.old_ledger import NAMES, OLD_PREFIX, OldRedis
from tests.processes import free_port, listens, running, start, stop, wait_until
from tests.switched_proxy import SwitchedProxy


def test_health_says_in_a_line_whether_jobs_are_taken(
    tmp_path: Path, redis_settings: RedisSettings
) -> None:
    port = free_port()
    env = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "REDIS_URL": redis_settings.url.get_secret_value(),
        "MEDIA_FILES_URL": str(tmp_path),
    }

    def health() -> tuple[int, str]:
        command = [sys.executable, "-m", "api", "health"]
        done = subprocess.run(
            command, env=os.environ | env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    status, line = health()
    assert status == 1
    assert "Connection refused" in line
    with running([sys.executable, "-m", "api"], port=port, log=tmp_path / "log", env=env):
        assert listens(port)
        status, line = health()
        assert (status, line.count("\n")) == (0, 1), line
        assert "200" in line
    lost = env | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    with running([sys.executable, "-m", "api"], port=port, log=tmp_path / "log", env=lost):
        status, line = health()
        assert status == 1
        assert "503" in line


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator["redis.Redis"]:
    port = free_port()
    directory = tmp_path / "redis"
    directory.mkdir()
    with running(redis_command(port, directory), port=port, log=directory / "log"):
        client = redis.Redis(port=port, decode_responses=True)
        yield client
        client.close()


@contextmanager
def api_without_redis(
    own_redis: "redis.Redis", directory: Path
) -> Iterator[tuple["subprocess.Popen[bytes]", str, SwitchedProxy]]:
    """Run an API that has found no Redis when it started; the proxy can bring it back."""
    proxy, port = SwitchedProxy(own_redis.get_connection_kwargs()["port"]), free_port()
    proxy.take_away()
    env = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0",
        "MEDIA_FILES_URL": str(directory),
    }
    api = start([sys.executable, "-m", "api"], log=directory / "api.log", env=env)
    try:
        wait_until(lambda: listens(port), what="the API listens")
        yield api, f"http://127.0.0.1:{port}", proxy
    finally:
        stop(api)
        proxy.close()


def test_jobs_of_an_older_version_are_adopted_when_redis_is_back(
    own_redis: "redis.Redis", tmp_path: Path
) -> None:
    old = OldRedis(own_redis, OLD_PREFIX)
    with api_without_redis(own_redis, tmp_path) as (_, url, proxy):
        job = f"{url}/jobs/{NAMES['succeeded']}"
        assert httpx.get(job).status_code == 503
        proxy.bring_back()
        seen: list[int] = []

        def adopted() -> bool:
            seen.append(httpx.get(job).status_code)
            return seen[-1] == 200

        wait_until(adopted, what="adoption")
        assert set(seen) <= {200, 503}, "it was always known"
        wait_until(lambda: own_redis.get(f"{old.prefix}:schema") == "2", what="the schema")


def test_an_api_that_meets_a_later_schema_when_redis_is_back_stops(
    own_redis: "redis.Redis", tmp_path: Path
) -> None:
    own_redis.set(f"{OLD_PREFIX}:schema", 3)
    with api_without_redis(own_redis, tmp_path) as (api, _, proxy):
        proxy.bring_back()
        assert api.wait(60) != 0
    log = (tmp_path / "api.log").read_text()
    assert "a later version of the platform uses this Redis (schema 3, here 2)" in log
