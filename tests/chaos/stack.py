"""The stack under test: two workers of each kind, and a supervisor that starts again what ended."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from embedded.hub.process import HubProcess
from embedded.redis import redis_command
from shared.ledger import JobEvent, Ledger, connect
from shared.settings import LakeFSSettings, LedgerSettings, RedisSettings
from tests.chaos.clock import SteppedClock
from tests.chaos.failover import replica
from tests.chaos.misbehaviour import install
from tests.platform import Platform
from tests.processes import listens

ROOT = Path(__file__).resolve().parents[2]
CPU, GPU = ("cpu-1", "cpu-2"), ("gpu-1", "gpu-2")
#: The size of the disk of a small file system; of models there is a tenth of it.
DISK_BYTES = 512 * 1024 * 1024
RESTART_SECONDS = 0.5
#: How long a replica that takes over has not heard of its primary.
LOST_SECONDS = 1.0
ENDS = (JobEvent.SUCCEEDED, JobEvent.FAILED, JobEvent.CANCELLED)


class ChaosStack(Platform):
    """A platform behind faulty proxies, with a supervisor."""

    def __init__(
        self, directory: Path, mlflow_url: str, lakefs: LakeFSSettings, hub: HubProcess, **env: str
    ) -> None:
        super().__init__(directory, mlflow_url, lakefs, hub, **env)
        #: Disks of their own, that can be full.
        self.disks = {"staging": directory / "staging", "snapshots": directory / "snapshots"}
        self.staging, self.snapshots = (disk / "models" for disk in self.disks.values())
        self.redis_settings = RedisSettings.model_validate({"url": self.env["REDIS_URL"]})
        self.ledger_settings = LedgerSettings.model_validate(
            {
                "lease_seconds": self.env["LEDGER_LEASE_SECONDS"],
                "max_crashes": self.env.get("LEDGER_MAX_CRASHES", 3),
            }
        )
        self.ledger = Ledger(connect(self.redis_settings), self.ledger_settings)
        self.clock = SteppedClock(directory / "clock")
        #: Where the Redis of now keeps its data.
        self._redis_directory = directory
        self._failovers = 0
        plugin = directory / "plugin"
        install(plugin)
        self.env |= {
            "PYTHONPATH": os.pathsep.join([str(plugin), str(ROOT)]),
            "STORAGE_STAGING_DIR": str(self.staging),
            "STORAGE_SNAPSHOTS_DIR": str(self.snapshots),
            "INFERENCE_DEVICE": "cpu",
            # Models go out of memory, and snapshots off the disk, while the run goes on.
            "INFERENCE_CACHE_MAX_MODELS": "3",
            "STORAGE_SNAPSHOTS_MAX_BYTES": str(3 * 1024 * 1024),
            "OMP_NUM_THREADS": "1",
            "WORKER_CPU_CONCURRENCY": "4",
            "WORKER_BRANCH_SWEEP_SECONDS": "2",
            # The books are made when all has ended.
            "LEDGER_EVENTS_SECONDS": "7200",
        }
        #: Ends of processes by name and exit status.
        self.exits: Counter[str] = Counter()
        #: When which workers ended, for whatever reason.
        self.deaths: list[tuple[float, str]] = []
        self._stopping = threading.Event()
        #: Held while processes are exchanged.
        self._exchanging = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name="keeper")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process, if it is there at this moment."""
        with suppress(ProcessLookupError):
            os.kill(self.pid(name), number)

    def answers(self, name: str) -> bool:
        """Return whether something listens where Redis or the front should."""
        return listens(self.redis_port if name == "redis" else self.api_port)

    def fail_over(self) -> tuple[float, float]:
        """Put a replica in the place of Redis; return the times between which writes are lost."""
        self._failovers += 1
        directory = self.directory / f"redis-{self._failovers}"
        with ExitStack() as exchanging:
            with replica(directory, self.clock.env()) as successor:
                since = successor.follow(self.redis_port)
                successor.cut_off()
                time.sleep(LOST_SECONDS)
                exchanging.enter_context(self._exchanging)
                self.kill("redis")
                until = time.time()
            self._redis_directory = directory
            self._launch("redis")
        return since, until

    def ends(self) -> int:
        """Return how many ends of jobs the ledger has counted."""
        counts = self.ledger.counts()
        return sum(counts.total(each) for each in ENDS)

    def processes(self) -> dict[str, int]:
        """Return the processes' ids."""
        return {name: process.pid for name, process in self._processes.items()}

    def _keep(self) -> None:
        """Start again what ended, for whatever reason, as any supervisor would."""
        while not self._stopping.wait(0.1):
            with self._exchanging:
                for name, process in list(self._processes.items()):
                    if (status := process.poll()) is not None:
                        self._start_again(name, status)

    def _start_again(self, name: str, status: int) -> None:
        self.exits[f"{name.partition('-')[0]} {status}"] += 1
        if name in {*CPU, *GPU}:
            self.deaths.append((time.time(), name))
        time.sleep(RESTART_SECONDS)
        self._launch(name)

    def _command(self, name: str) -> list[str]:
        if name == "redis":
            return redis_command(self.redis_port, self._redis_directory)
        return super()._command(name)

    def _own_env(self, name: str) -> dict[str, str]:
        return self.clock.env() if name == "redis" else super()._own_env(name)

    def __enter__(self) -> Self:
        self.start("redis", "api", *CPU, *GPU)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for name in self.processes():
            self.signal(name, signal.SIGCONT)
        super().__exit__()


@contextmanager
def small_disk(directory: Path) -> Iterator[bool]:
    """Mount a small file system for the length of a block; yields whether that was possible."""
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chaos", str(directory)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
