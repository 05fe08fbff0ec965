"""A service of the compose file as processes of this machine."""

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.deployment import REPOSITORY
from tests.deployment.compose_file import Service
from tests.deployment.image import Image
from tests.deployment.machine import Machine, bare_environment
from tests.processes import stop

#: Between two looks at a container's health: each starts a process.
_INTERVAL_SECONDS = 1.0


class Container:
    """Runs a service's very command and health check, with nothing but its image's environment."""

    def __init__(self, service: Service, image: Image | None, machine: Machine) -> None:
        self.service = service
        self._image = image
        self._machine = machine
        self._opt = image.root if image else None
        self._log = machine.root / f"{service.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.env = dict(bare_environment())
        if image:
            self._furnish(image)
        machine.mount(service.definition.get("volumes", []), REPOSITORY)
        self.env |= {name: self._here(value) for name, value in service.environment.items()}

    @property
    def command(self) -> list[str]:
        """The command of the file, else the image's."""
        words = self.service.command or (self._image.stage.command if self._image else [])
        return [self._here(word) for word in words]

    @property
    def health_check(self) -> list[str]:
        """The health check of the file, else the image's."""
        words = self.service.health_check
        if words is None and self._image:
            words = self._image.stage.health_check
        return [self._here(word) for word in words or []]

    @property
    def log(self) -> str:
        """All that it printed."""
        return self._log.read_text()

    def run(self) -> None:
        """Run it to its end, which must be a good one."""
        self.start()
        assert self._process
        assert self._process.wait(120) == 0, self.log

    def start(self) -> None:
        """Start it; what it prints is kept."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._found(self.command),
                cwd=self._directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def await_health(self, timeout_seconds: float = 240) -> None:
        """Ask for its health, as the engine would, until it is well."""
        assert self._process
        deadline = time.monotonic() + timeout_seconds
        while not self.is_healthy():
            assert time.monotonic() < deadline, f"{self.service.name}:\n{self.log[-4000:]}"
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_INTERVAL_SECONDS)
            assert self._process.poll() is None, f"{self.service.name} ended:\n{self.log[-4000:]}"

    def is_healthy(self) -> bool:
        """Ask for its health once."""
        return self.execute(self.health_check).returncode == 0

    def execute(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run another command beside its own."""
        return subprocess.run(
            self._found(words),
            cwd=self._directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop(self) -> float:
        """Stop it as the engine does, and return the seconds that it took."""
        started = time.monotonic()
        if self._process:
            stop(self._process, timeout_seconds=120)
        return time.monotonic() - started

    @property
    def _directory(self) -> Path:
        directory = self._machine.path("/app")
        directory.mkdir(exist_ok=True)
        return directory

    def _furnish(self, image: Image) -> None:
        for directory in image.directories:
            self._machine.path(directory).mkdir(parents=True, exist_ok=True)
        mounts = [
            f"./{each.value.split()[0]}:{_destination(each.value)}:ro"
            for each in image.stage.instructions
            if each.name == "COPY" and not each.option("from")
        ]
        self._machine.mount(mounts, REPOSITORY)
        for name, value in image.environment:
            self.env[name] = self._here(value).replace("$PATH", self.env["PATH"])

    def _here(self, text: str) -> str:
        return self._machine.here(text, self._opt)

    def _found(self, words: list[str]) -> list[str]:
        """Look the program up on the container's path, not on the tests'."""
        program = shutil.which(words[0], path=self.env["PATH"])
        assert program, f"{words[0]} is not on {self.env['PATH']}"
        return [program, *words[1:]]


def _destination(value: str) -> str:
    destination = value.rsplit(maxsplit=1)[-1]
    return destination if destination.startswith("/") else f"/app/{destination}"
