"""``lifecycle`` as a user runs it: in a directory of its own, without settings, on free ports."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedded.data_directory import DataDirectory, StackRecord
from tests.processes import stop, wait_until

ROOT = Path(__file__).resolve().parents[2]
#: In the environment of everything that a command starts, and so in that of all that those start.
MARK = "LIFECYCLE_TEST_MARK"
#: Of the settings that would bring a part of the stack from outside.
_SETTINGS = ("REDIS_", "MLFLOW_", "LAKEFS_", "OLLAMA_", "HF_", "STORAGE_", "API_", "LIFECYCLE_")
#: A loaded machine may take this long for MLflow alone.
START_SECONDS = 180


class CommandLine:
    """The command on one data directory."""

    def __init__(self, directory: Path) -> None:
        self.data = DataDirectory(directory / "data")
        self._directory = directory
        self._mark = uuid.uuid4().hex
        #: Settings that the commands are given.
        self.settings: dict[str, str] = {}

    def run(self, *arguments: str, timeout_seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._command(arguments),
            env=self._environment(),
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command for the length of a block; what it prints goes to a file."""
        with (self._directory / "output").open("wb") as output:
            process = subprocess.Popen(
                self._command(arguments),
                env=self._environment(),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            stop(process)

    @property
    def output(self) -> str:
        """What a running command has printed so far."""
        return (self._directory / "output").read_text()

    @property
    def record(self) -> StackRecord:
        """What runs."""
        record = self.data.running()
        assert record, f"nothing runs:\n{self.output[-4000:]}"
        return record

    def wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the whole stack."""

        def up() -> bool:
            assert process.poll() is None, f"ended:\n{self.output[-4000:]}"
            return "Ctrl-C stops all of it" in self.output

        wait_until(up, START_SECONDS, what="the stack is healthy")

    def processes(self) -> dict[int, str]:
        """Return the command lines of all live processes that the commands started."""
        found = {}
        for entry in Path("/proc").iterdir():
            # A process may end while it is looked at; a zombie has no environment.
            with suppress(OSError):
                if entry.name.isdigit() and self._mark in (entry / "environ").read_text():
                    command = (entry / "cmdline").read_text().replace("\0", " ")
                    found[int(entry.name)] = command
        return found

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "client.cli", *arguments]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        return kept | {
            "LIFECYCLE_DATA_DIR": str(self.data.path),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
            MARK: self._mark,
            **self.settings,
        }
