"""Several API processes on one port: replaced when they die, counted together, stopped together."""

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median
from subprocess import Popen

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.config import STARTUP_FAILURE

from shared.jobs import JobState
from shared.ledger import Ledger
from shared.settings import LedgerSettings, RedisSettings
from tests.claims import claim
from tests.processes import free_port, listens, start, stop, wait_until

PROCESSES = 2
DOWNLOAD = {"model_name": "org/model"}
CALLS = "lifecycle_http_request_duration_seconds_count"


class Api:
    """An API of several processes."""

    def __init__(self, supervisor: "Popen[bytes]", port: int) -> None:
        self.supervisor = supervisor
        self.url = f"http://127.0.0.1:{port}"

    def serving(self) -> list[psutil.Process]:
        """Return the processes that answer calls."""
        children = psutil.Process(self.supervisor.pid).children()
        alive = (each for each in children if each.status() != psutil.STATUS_ZOMBIE)
        # Another child tracks what multiprocessing shares.
        return [each for each in alive if "spawn_main" in " ".join(each.cmdline())]

    def live(self) -> bool:
        """Make a call on a connection of its own; return whether it was answered."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health/live").is_success
        return False

    def ended(self, job_id: str) -> float:
        """Wait for a job's end; return when it was known."""
        answer = httpx.get(f"{self.url}/jobs/{job_id}?wait=60", timeout=90)
        assert answer.json()["state"] == "succeeded", answer.text
        return time.monotonic()

    def waits(self) -> int:
        """Return how many calls are held, without the one that asks."""
        return int(self.series()["lifecycle_http_requests_open"]) - 1

    def series(self) -> dict[str, float]:
        """Return the samples of this API server itself, summed over their labels."""
        text = httpx.get(f"{self.url}/metrics").text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
        return found


@pytest.fixture
def environment(
    tmp_path: Path, redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> dict[str, str]:
    return {
        "API_HOST": "127.0.0.1",
        "API_WORKERS": str(PROCESSES),
        "REDIS_URL": redis_settings.url.get_secret_value(),
        "LEDGER_PREFIX": ledger_settings.prefix,
        "MEDIA_FILES_URL": str(tmp_path),
    }


@pytest.fixture
def api(tmp_path: Path, environment: dict[str, str]) -> Iterator[Api]:
    port = free_port()
    environment["API_PORT"] = str(port)
    supervisor = start([sys.executable, "-m", "api"], log=tmp_path / "log", env=environment)
    api = Api(supervisor, port)
    try:
        wait_until(lambda: api.live() and len(api.serving()) == PROCESSES)
        yield api
    finally:
        stop(supervisor)


def test_a_process_that_dies_is_replaced(api: Api) -> None:
    first, second = api.serving()
    first.kill()
    wait_until(lambda: {each.pid for each in api.serving()} - {first.pid, second.pid})
    assert second in api.serving()
    assert all(api.live() for _ in range(20))


def test_a_scrape_sums_the_processes(api: Api) -> None:
    wait_until(lambda: api.series()["lifecycle_http_requests_open"] == 1)
    before = api.series()
    assert all(api.live() for _ in range(50))
    after = api.series()
    # The first of the two scrapes is counted too.
    assert after[CALLS] - before[CALLS] == 51
    assert after["lifecycle_up"] == 1
    resident = sum(each.memory_info().rss for each in api.serving())
    assert after["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.1)

    # What a process counted outlives it; what it had open does not.
    api.serving()[0].kill()
    wait_until(lambda: len(api.serving()) == PROCESSES and api.live())
    last = api.series()
    assert last[CALLS] >= after[CALLS]
    assert last["lifecycle_http_requests_open"] == 1


def test_a_wait_in_one_process_ends_with_a_job_of_another(
    api: Api, ledger: Ledger, figure: Callable[[str], None]
) -> None:
    seconds = []
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            job_id = httpx.post(f"{api.url}/models/download", json=DOWNLOAD).json()["job_id"]
            # Each on a connection of its own: some of them reach the other process.
            calls = [pool.submit(api.ended, job_id) for _ in range(8)]
            wait_until(lambda: api.waits() == 8)
            ledger.finish(claim(ledger, job_id), JobState.SUCCEEDED, result={})
            ended_at = time.monotonic()
            seconds += [call.result() - ended_at for call in calls]
    middle = median(seconds)
    figure(f"a job's end, seen through {PROCESSES} API processes: {middle * 1000:.1f} ms")
    assert middle < 0.5  # 50 ms on a machine that does nothing else


def test_all_processes_stop_with_their_supervisor(api: Api) -> None:
    processes = api.serving()
    api.supervisor.send_signal(signal.SIGTERM)
    assert api.supervisor.wait(60) == 0
    assert not any(each.is_running() for each in processes)


def test_no_process_outlives_a_supervisor_that_was_killed(api: Api) -> None:
    processes, port = api.serving(), int(api.url.rpartition(":")[2])
    api.supervisor.kill()
    api.supervisor.wait()
    psutil.wait_procs(processes, timeout=60)
    assert not listens(port)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_api_that_cannot_start_says_so_with_its_exit_status(
    tmp_path: Path, environment: dict[str, str], workers: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment |= {"API_WORKERS": workers, "API_PORT": str(taken.getsockname()[1])}
        command = [sys.executable, "-m", "api"]
        process = start(command, log=tmp_path / "log", env=environment)
        try:
            assert process.wait(60) == STARTUP_FAILURE
        finally:
            stop(process)
