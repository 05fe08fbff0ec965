"""Starts the embedded lakeFS server as a process of its own."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from lakefs.client import Client

ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
START_SECONDS = 30


def connect(endpoint: str, access_key_id: str, secret_access_key: str) -> Client:
    """Return a client of the high-level package."""
    return Client(host=endpoint, username=access_key_id, password=secret_access_key)  # type: ignore[no-untyped-call]


class EmbeddedServer:
    """A server over one data folder, on a port of its own."""

    def __init__(self, data: Path, *, presign: bool = False, is_set_up: bool = True) -> None:
        """Start it, without a key pair if it is to be set up."""
        self.data = data
        keys = {
            "LAKEFS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "LAKEFS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        }
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "embedded.lakefs"),
                *("--port", "0", "--data", str(data)),
                *(["--presign"] if presign else []),
            ],
            env={**os.environ, **(keys if is_set_up else dict.fromkeys(keys, ""))},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.endpoint = self._announced_endpoint()

    def client(self) -> Client:
        """Return a client that may do everything."""
        return connect(self.endpoint, ACCESS_KEY_ID, SECRET_ACCESS_KEY)

    def memory_bytes(self) -> int:
        """Return the most memory that the process has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the process and wait until it is gone."""
        self.process.send_signal(signal_number)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self._stdout.close()

    def _announced_endpoint(self) -> str:
        assert self.process.stdout
        self._stdout = self.process.stdout
        ready, _, _ = select.select([self._stdout], [], [], START_SECONDS)
        line = self._stdout.readline() if ready else ""
        assert "http://" in line, f"the server said {line!r}"
        return next(word.strip(",") for word in line.split() if word.startswith("http://"))
