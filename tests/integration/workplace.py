"""A ledger and one real worker process whose work is scripted; restarted when it dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis

from shared.jobs import Job
from shared.ledger import Ledger
from shared.settings import LedgerSettings, RedisSettings
from tests.claims import download
from tests.processes import start, stop, wait_until


class Workplace:
    """What an API server and a supervisor are to one worker."""

    def __init__(
        self, redis_settings: RedisSettings, settings: LedgerSettings, directory: Path, **env: str
    ) -> None:
        self.url = redis_settings.url.get_secret_value()
        self.redis = redis_settings
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self.settings = settings
        self.ledger = Ledger(self.client, settings)
        self.log = directory / "worker.log"
        self._env = {
            "REDIS_URL": self.url,
            **{
                f"LEDGER_{name.upper()}": str(value)
                for name, value in settings.model_dump(exclude_unset=True).items()
            },
            **env,
        }
        self.worker: subprocess.Popen[bytes] | None = None

    def submit(self, model: str, **changes: Any) -> str:
        """Accept a download; ``model`` says what the worker does (tests/scripted_worker.py)."""
        return self.ledger.accept(download(model, **changes))[0].id

    def start(self) -> None:
        """Start the worker, and wait until it takes jobs."""
        seen = self._ready()
        command = [sys.executable, "-m", "tests.scripted_worker", "cpu", "--name", "cpu@test"]
        self.worker = start(command, log=self.log, env=self._env)
        wait_until(lambda: self._ready() > seen, what="the worker is ready")

    def tend(self) -> None:
        """Start the worker again if it died, as its supervisor does."""
        if self.worker is not None and self.worker.poll() is not None:
            self.start()

    def stop(self) -> None:
        """End the worker politely."""
        assert self.worker is not None
        stop(self.worker)
        self.worker = None

    def kill(self) -> None:
        """End the worker without a word."""
        assert self.worker is not None
        self.worker.send_signal(signal.SIGKILL)
        self.worker.wait()
        self.worker = None

    def children(self) -> list[int]:
        """Return the processes that the worker started."""
        assert self.worker is not None
        tasks = Path(f"/proc/{self.worker.pid}/task")
        return [
            int(child)
            for task in tasks.iterdir()
            for child in (task / "children").read_text().split()
        ]

    def job(self, job_id: str) -> Job:
        """Look at a job."""
        return self.ledger.get(job_id)

    def ended(self, *job_ids: str, timeout_seconds: float = 60) -> list[Job]:
        """Wait for the end of jobs, with the worker restarted as often as it dies."""

        def all_ended() -> bool:
            self.tend()
            return all(self.ledger.ended(job_id) for job_id in job_ids)

        wait_until(all_ended, timeout_seconds, what="the jobs have ended")
        return [self.job(job_id) for job_id in job_ids]

    def close(self) -> None:
        """End the worker and all connections."""
        if self.worker is not None:
            stop(self.worker)
        self.client.close()

    def _ready(self) -> int:
        return self.log.read_text().count("worker ready") if self.log.exists() else 0


def alive(process: int) -> bool:
    """Return whether a process, of anybody, still runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
