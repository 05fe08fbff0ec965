"""The hub as a process of its own, for tests, benchmarks and the demo."""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from embedded.hub.faults import Fault

_REPOSITORY = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 10


class HubProcess:
    """Starts `python -m embedded.hub` on a free port; a context manager that stops it."""

    def __init__(self, root: Path, *arguments: str, token: str | None = None) -> None:
        self._command = [sys.executable, "-m", "embedded.hub", "--root", str(root)]
        self._command += ["--port", "0", "--faults", *arguments]
        self._environment = {**os.environ, "HUB_TOKEN": token or ""}
        self._process: subprocess.Popen[str] | None = None
        self.root = root
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=_REPOSITORY,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        # The line is printed when the socket listens; an empty one means that the process ended.
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self.stop()
            raise RuntimeError(f"The hub did not start: {' '.join(self._command)}")
        self.url = line.split(" at ")[-1].strip()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            if self._process.stdout:
                self._process.stdout.close()

    def set_faults(self, *faults: Fault) -> None:
        """Put these faults in the place of all others; none makes the hub sound again."""
        body = {"faults": [fault.model_dump(mode="json") for fault in faults]}
        httpx.put(f"{self.url}/_faults", json=body).raise_for_status()

    def stats(self) -> dict[str, Any]:
        """Return the counters."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/_stats").raise_for_status().json()
        return answer

    def reset_stats(self) -> None:
        """Set the counters to zero."""
        httpx.delete(f"{self.url}/_stats").raise_for_status()
