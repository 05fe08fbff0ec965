"""A worker's process against work that does not stop, a broker that goes dead, and signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob, Presence, connect
from shared.ledger.schema import schema_prefix
from shared.queue import DOWNLOADS
from shared.settings import LedgerSettings, RedisSettings
from tests.processes import start, wait_until
from tests.tcp_proxy import tcp_proxy
from workers.process.shutdown import REPLACE_STATUS

#: Short, so that a test can wait for each; a busy machine must not fall behind them.
HASTE = {
    "LEDGER_LEASE_SECONDS": "3",
    "LEDGER_HEARTBEAT_SECONDS": "0.5",
    "LEDGER_RECONCILE_SECONDS": "0.5",
    "LEDGER_BACKOFF_SECONDS": "0.2",
    "LEDGER_MAX_CRASHES": "2",
    "WORKER_DRAIN_SECONDS": "0.5",
    "WORKER_STUCK_SECONDS": "1",
    "WORKER_DEAF_SECONDS": "3",
    "WORKER_CPU_CONCURRENCY": "3",
}
#: From the end of a process to the next one's readiness, and for all else that takes seconds.
PATIENCE_SECONDS = 60


class Bench:
    """A ledger, and worker processes on it."""

    def __init__(self, directory: Path, redis_settings: RedisSettings, prefix: str) -> None:
        self.directory = directory
        self.env = {
            **HASTE,
            "REDIS_URL": redis_settings.url.get_secret_value(),
            "LEDGER_PREFIX": prefix,
            "STORAGE_HOST_ID": prefix,
        }
        self.name = f"cpu@{prefix}"
        self.prefix = schema_prefix(LedgerSettings(prefix=prefix))
        ledger_settings = LedgerSettings(prefix=prefix)
        self.client = connect(redis_settings)
        self.ledger = Ledger(self.client, ledger_settings)
        self.presence = Presence(self.client, ledger_settings)
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def log(self) -> str:
        return (self.directory / "worker.log").read_text()

    def start(self, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until it has said that it is well."""
        self.presence.leave(self.name)
        command = [sys.executable, "-m", "tests.misbehaving_worker"]
        log = self.directory / "worker.log"
        self.processes.append(start(command, log=log, env=self.env | env))
        wait_until(lambda: self.presence.fault(self.name) is None, PATIENCE_SECONDS, self.name)
        return self.processes[-1]

    def submit(self, act: str, *, attempts: int = 1, seconds: float | None = None) -> str:
        """Submit a job that does an act."""
        mark = str(self.directory / f"mark-{act}")
        job = NewJob(
            kind=JobKind.DOWNLOAD,
            request={"act": act, "mark": mark},
            queue=DOWNLOADS,
            model=act,
            max_attempts=attempts,
            lifetime_seconds=seconds,
        )
        self.ledger.accept(job)
        return job.id

    def running(self, act: str, seconds: float | None = None) -> str:
        """Submit a job, and wait until its work has begun."""
        job_id = self.submit(act, seconds=seconds)
        wait_until(lambda: self.job(job_id).state is not JobState.QUEUED, PATIENCE_SECONDS, act)
        if act == "obey":
            wait_until((self.directory / "mark-obey").exists, PATIENCE_SECONDS, act)
        return job_id

    def job(self, job_id: str) -> Job:
        return self.ledger.get(job_id)

    def ended(self, job_id: str, seconds: float = PATIENCE_SECONDS) -> Job:
        """Wait for a job's end."""
        wait_until(lambda: self.job(job_id).state.terminal, seconds, "the job's end")
        return self.job(job_id)

    def died(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a process' end, and return its status."""
        return process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.client.close()


@pytest.fixture
def bench(
    tmp_path: Path, redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> Iterator[Bench]:
    bench = Bench(tmp_path, redis_settings, ledger_settings.prefix)
    yield bench
    bench.close()


def code(job: Job) -> str | None:
    return job.error.code if job.error else None


def test_work_that_does_not_stop_costs_the_process_and_its_neighbours_nothing(
    bench: Bench,
) -> None:
    process = bench.start()
    neighbour, cancelled = bench.running("obey"), bench.running("ignore")
    late = bench.running("ignore", seconds=1)
    bench.ledger.cancel(cancelled)

    assert bench.died(process) == REPLACE_STATUS
    assert "in _ignore" in bench.log, "it says where the work hangs"
    back = bench.job(neighbour)
    assert (back.state, back.attempts, back.crashes) == (JobState.QUEUED, 0, 0)
    bench.start()
    assert bench.ended(cancelled).state is JobState.CANCELLED
    assert code(bench.ended(late)) == "deadline_exceeded"
    job = bench.ended(neighbour)
    assert (job.state, job.attempts, job.crashes) == (JobState.SUCCEEDED, 1, 0)


def test_work_that_holds_pythons_lock_is_ended_from_below(bench: Bench) -> None:
    process = bench.start()
    neighbour = bench.running("obey")
    stuck = bench.running("hold", seconds=5)

    assert bench.died(process) == 1
    assert "Timeout (0:00:06)!" in bench.log
    assert "in _hold_the_lock" in bench.log, "it says what the thread was doing"
    bench.start()
    assert bench.ended(neighbour).state is JobState.SUCCEEDED
    assert code(bench.ended(stuck)) == "deadline_exceeded"


def test_work_that_takes_its_process_down_fails_alone(bench: Bench) -> None:
    process = bench.start()
    neighbour = bench.running("obey")
    poison = bench.submit("crash")

    assert bench.died(process) == -signal.SIGSEGV
    process = bench.start()
    assert bench.ended(neighbour).state is JobState.SUCCEEDED
    assert bench.died(process) == 3
    bench.start()
    assert code(bench.ended(poison)) == "crashed"
    assert bench.ended(bench.submit("end")).state is JobState.SUCCEEDED


def test_a_worker_outlives_what_its_work_raises_and_leaks_nothing(bench: Bench) -> None:
    process = bench.start()
    seen = psutil.Process(process.pid)

    def rounds(number: int) -> None:
        acts = ["memory", "exit", "end"] * number
        jobs = [bench.submit(act) for act in acts]
        codes = {act: code(bench.ended(job)) for act, job in zip(acts, jobs, strict=True)}
        assert codes == {"memory": "out_of_memory", "exit": "internal_error", "end": None}

    def cut_and_go_on() -> None:
        bench.client.client_kill_filter(_type="normal", skipme=True)
        rounds(4)

    # Connections are kept, so that the first rounds add some; a leak adds some in each.
    descriptors, threads, calm = [0], [0], 0
    while calm < 3:
        cut_and_go_on()
        before = max(descriptors), max(threads)
        descriptors.append(seen.num_fds())
        threads.append(seen.num_threads())
        calm = calm + 1 if before == (max(descriptors), max(threads)) else 0
        assert len(threads) < 20, (descriptors, threads)
    assert process.poll() is None


def test_a_deaf_worker_gives_its_jobs_back_and_leaves(
    bench: Bench, figure: Callable[[str], None]
) -> None:
    for name in HASTE:
        del bench.env[name]  # as a user has it
    process = bench.start()
    running = bench.running("obey")
    bench.running("deafen")

    assert bench.died(process) == REPLACE_STATUS
    assert "Celery's event loop has done nothing" in bench.log
    assert bench.job(running).attempts == 0
    waiting = bench.submit("end")
    bench.start()
    served = bench.ended(waiting)
    assert served.finished_at is not None
    seconds = (served.finished_at - served.created_at).total_seconds()
    figure(f"deaf worker, default settings: serving again after {seconds:.1f} s")
    assert served.attempts == 1
    again = bench.ended(running)
    assert (again.attempts, again.crashes) == (1, 0)


def test_a_connection_that_goes_dead_without_a_word_is_made_anew(
    bench: Bench, redis_settings: RedisSettings, figure: Callable[[str], None]
) -> None:
    port = bench.client.connection_pool.connection_kwargs["port"]
    with tcp_proxy(port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        process = bench.start(REDIS_URL=url, WORKER_DEAF_SECONDS="15")
        assert proxy.freeze() > 0
        waiting = bench.submit("end")
        wait_until(lambda: bench.job(waiting).state.terminal or process.poll(), PATIENCE_SECONDS)
        if process.poll():  # the client's own remedy took too long on a busy machine
            assert bench.died(process) == REPLACE_STATUS
            bench.start(REDIS_URL=url)
        job = bench.ended(waiting)
        assert job.finished_at is not None
        seconds = (job.finished_at - job.created_at).total_seconds()
        remedy = "a new process" if process.poll() else "a new connection"
        figure(f"dead connections to Redis: served after {seconds:.1f} s, by {remedy}")
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)


def test_a_worker_that_sleeps_is_not_well(bench: Bench) -> None:
    process = bench.start(LEDGER_LEASE_SECONDS="2")

    def health(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "workers", "health", *arguments]
        done = subprocess.run(
            command, env={**os.environ, **bench.env}, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.strip()

    assert health("--name", bench.name) == health() == (0, f"{bench.name}: well")
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: bench.presence.fault(bench.name), PATIENCE_SECONDS, "its word runs out")
    status, line = health("--name", bench.name)
    assert status == 1
    assert line.startswith(f"{bench.name}: it has said nothing")
    assert health()[0] == 1
    process.send_signal(signal.SIGCONT)


def test_two_signals_give_each_job_back_once(bench: Bench, redis_client: "redis.Redis") -> None:
    process = bench.start(WORKER_DRAIN_SECONDS="2")
    running = bench.running("obey")
    bench.ledger.follow(running)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: "worker draining" in bench.log, what="the first signal is heard")
    waiting = bench.submit("end")
    process.send_signal(signal.SIGTERM)

    assert bench.died(process) == 0
    back = bench.job(running)
    assert (back.state, back.attempts, back.crashes) == (JobState.QUEUED, 0, 0)
    assert bench.presence.fault(bench.name), "it has said good-bye"
    bench.start()
    assert [bench.ended(job).attempts for job in (running, waiting)] == [1, 1]
    events: Any = redis_client.xrange(f"{bench.prefix}:events:{running}")
    states = [fields["data"] for _, fields in events if fields["event"] == "state"]
    assert len(states) == 4, "running when it was followed, queued, running, succeeded"
