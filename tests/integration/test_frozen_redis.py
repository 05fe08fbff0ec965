"""A Redis that hangs: everybody is told so in seconds, and it is asked again when it answers."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.circuit import PAUSE_SECONDS
from embedded.redis import redis_command
from shared.settings import ApiSettings, LedgerSettings, MLflowSettings, RedisSettings, Settings
from tests.processes import free_port, running, wait_until

CALLS: list[tuple[str, dict[str, object]]] = [
    ("/models/download", {"model_name": "org/model"}),
    ("/inference/infer", {"task": "asr", "model_name": "m", "data": {"inputs": "x"}}),
]
AT_ONCE = 16
#: Ten times the one time-out that it takes; when all of them waited in turn it was a minute.
BOUND_SECONDS = 21.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Popen[bytes], RedisSettings]]:
    """A Redis that only this test uses."""
    port = free_port()
    url = {"url": f"redis://127.0.0.1:{port}/0", "timeout_seconds": 2}
    with running(redis_command(port, tmp_path), port=port, log=tmp_path / "log") as process:
        yield process, RedisSettings.model_validate(url)


def test_who_calls_while_redis_hangs_hears_so_in_seconds(
    server: tuple[Popen[bytes], RedisSettings], ledger_settings: LedgerSettings
) -> None:
    process, redis_settings = server
    nobody = MLflowSettings(tracking_uri=f"http://127.0.0.1:{free_port()}")
    settings = Settings(
        redis=redis_settings,
        ledger=ledger_settings,
        mlflow=nobody,
        # Whether there are API keys is looked at by each call.
        api=ApiSettings(key_cache_seconds=0),
    )
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(AT_ONCE) as pool:

        def submit(number: int) -> tuple[Any, float]:
            began = time.monotonic()
            path, body = CALLS[number % len(CALLS)]
            return client.post(path, json=body), time.monotonic() - began

        # It has connections, as a front that works has.
        assert {answer.status_code for answer, _ in pool.map(submit, range(AT_ONCE))} == {202}
        os.kill(process.pid, signal.SIGSTOP)
        try:
            refused = list(pool.map(submit, range(AT_ONCE)))
            time.sleep(PAUSE_SECONDS)
            began = time.monotonic()
            looked = client.get("/jobs")
            refused.append((looked, time.monotonic() - began))
        finally:
            os.kill(process.pid, signal.SIGCONT)
        for answer, seconds in refused:
            assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert seconds < BOUND_SECONDS, [seconds for _, seconds in refused]
        wait_until(lambda: submit(0)[0].status_code == 202, 10 * PAUSE_SECONDS)
        assert {answer.status_code for answer, _ in pool.map(submit, range(AT_ONCE))} == {202}
