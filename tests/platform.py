"""The platform's own processes, started one by one so that a test can kill any of them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from embedded.health import RedisProbe
from embedded.hub.process import HubProcess
from embedded.redis import redis_command
from shared.ledger import Presence, connect
from shared.settings import LakeFSSettings, LedgerSettings, RedisSettings
from tests.processes import free_port, listens, start, stop, wait_until

Json = dict[str, Any]

#: A GPU worker imports for seconds, on a machine that other tests keep busy for many of them.
START_SECONDS = 180


class Platform:
    """A front, workers and a Redis of its own, on given stores."""

    def __init__(
        self,
        directory: Path,
        mlflow_url: str,
        lakefs: LakeFSSettings,
        hub: HubProcess,
        hosts: Sequence[str] = (),
        **env: str,
    ) -> None:
        """Run workers as on one host, or on several: then ``cpu-<host>`` and ``gpu-<host>``."""
        self.hosts = tuple(hosts)
        self.directory = directory
        self.hub = hub
        self.redis_port, self.api_port = free_port(), free_port()
        self.staging = directory / "staging"
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}", timeout=150)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "MLFLOW_TRACKING_URI": mlflow_url,
            "LAKEFS_ENDPOINT": lakefs.endpoint,
            "LAKEFS_ACCESS_KEY_ID": lakefs.access_key_id,
            "LAKEFS_SECRET_ACCESS_KEY": lakefs.secret_access_key.get_secret_value(),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "API_PORT": str(self.api_port),
            "STORAGE_STAGING_DIR": str(self.staging),
            "STORAGE_SNAPSHOTS_DIR": str(directory / "snapshots"),
            "STORAGE_RESERVE_BYTES": "0",
            "MEDIA_FILES_URL": str(directory / "files"),
            # Shorter than the default, so that the tests of recovery are.
            "LEDGER_LEASE_SECONDS": os.environ.get("LEDGER_LEASE_SECONDS", "8"),
            "LEDGER_BACKOFF_SECONDS": "0.5",
            "WORKER_DRAIN_SECONDS": "1",
            **env,
        }

    # ── processes ────────────────────────────────────────────────────────────

    def start(self, *names: str) -> None:
        """Start ``redis``, ``api``, ``cpu`` or ``gpu``, and wait until each can be used.

        One of several workers of a kind has a number or a host: ``cpu-1``.
        """
        for name in names:
            self._launch(name)
        for name in names:
            wait_until(lambda name=name: self._up(name), START_SECONDS, f"{name} is up")  # type: ignore[misc]

    def kill(self, name: str) -> None:
        """End a process without a word, as the kernel does when memory is out."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, *names: str) -> None:
        """End processes politely; all of them if no name is given."""
        for name in names or reversed(list(self._processes)):
            stop(self._processes[name])
            del self._processes[name]

    def pid(self, name: str) -> int:
        """Return a process' id."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """Return all that a process has printed."""
        return (self.directory / f"{name}.log").read_text()

    def staging_of(self, host: str) -> Path:
        """Return the staging area of one of several hosts."""
        return self.directory / host / "staging"

    def _launch(self, name: str) -> None:
        env, log = self.env | self._own_env(name), self.directory / f"{name}.log"
        self._processes[name] = start(self._command(name), log=log, env=env)

    def _own_env(self, name: str) -> dict[str, str]:
        """Return what a worker of one of several hosts has to itself: hosts share no directory."""
        host = name.partition("-")[2]
        if host not in self.hosts:
            return {}
        return {
            "STORAGE_HOST_ID": host,
            "STORAGE_STAGING_DIR": str(self.staging_of(host)),
            "STORAGE_SNAPSHOTS_DIR": str(self.directory / host / "snapshots"),
        }

    def _command(self, name: str) -> list[str]:
        if name == "redis":
            return redis_command(self.redis_port, self.directory)
        if name == "api":
            return [sys.executable, "-m", "api"]
        kind, _, number = name.partition("-")
        named = ["--name", f"{name}@{socket.gethostname()}"] if number else []
        return [sys.executable, "-m", "workers", kind, *named]

    def _up(self, name: str) -> bool:
        if self._processes[name].poll() is not None:
            raise AssertionError(f"{name} ended at once:\n{self.log(name)[-4000:]}")
        if name == "redis":
            # It listens before it has read what it had written.
            return RedisProbe(url=self.env["REDIS_URL"]).healthy()
        if name == "api":
            return listens(self.api_port) and self.http.get("/health/ready").status_code == 200
        client = connect(RedisSettings.model_validate({"url": self.env["REDIS_URL"]}))
        with client:
            workers = Presence(client, LedgerSettings()).workers()
        return self.pid(name) in {worker.status.get("pid") for worker in workers}

    # ── the public API ───────────────────────────────────────────────────────

    def submit(self, call: str, wait: float = 0, **body: Any) -> Json:
        """Submit a job, and return it as it is after the wait."""
        response = self.http.post(call, json=body, params={"wait": wait} if wait else {})
        assert response.status_code in {200, 202}, response.text
        return dict(response.json())

    def done(self, call: str, wait: float = 100, **body: Any) -> Json:
        """Submit a job, and return its result; it must succeed within the wait."""
        return self.ended(self.submit(call, **body)["job_id"], wait)["result"]  # type: ignore[no-any-return]

    def job(self, job_id: str) -> Json:
        """Look at a job."""
        return dict(self.http.get(f"/jobs/{job_id}").raise_for_status().json())

    def ended(self, job_id: str, wait: float = 100, state: str = "succeeded") -> Json:
        """Wait for a job's end, which must be as said; a busy machine gets twice the time."""
        for _ in range(2):
            response = self.http.get(f"/jobs/{job_id}", params={"wait": wait}).raise_for_status()
            job = dict(response.json())
            if job["finished_at"]:
                break
        assert job["state"] == state, json.dumps(job, indent=1)
        return job

    def wait_for(self, job_id: str, event: str) -> Json:
        """Follow a job until an event of a name, and return its data."""
        for name, data in self.events(job_id):
            if name == event:
                return data
        raise AssertionError(f"job {job_id} ended without {event}: {self.job(job_id)}")

    def events(self, job_id: str) -> Iterator[tuple[str, Json]]:
        """Follow a job to its end."""
        with self.http.stream("GET", f"/jobs/{job_id}/events") as response:
            assert response.status_code == 200
            name = ""
            for line in response.iter_lines():
                if line.startswith("event:"):
                    name = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    yield name, json.loads(line.removeprefix("data:"))

    def __enter__(self) -> Self:
        try:
            workers = [f"{kind}-{host}" for host in self.hosts for kind in ("cpu", "gpu")]
            self.start("redis", "api", *(workers or ["cpu", "gpu"]))
        except BaseException:
            # Nobody else would end those that did start.
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.http.close()
