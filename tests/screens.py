"""Records what the command line looks like, 80 columns wide: ``make screens``; needs tmux.

Every recording in ``docs/screens`` is of the real command on a stack of its own.
"""

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.data_directory import DataDirectory, StackRecord
from embedded.hub.repository import publish
from tests.processes import wait_until

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "screens"
_LARGE = "demo/large"
_LARGE_MIB = 800
_START_SECONDS = 300
_COLUMNS, _LINES = 80, 24


class Screen:
    """A terminal of tmux."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = f"screens-{uuid.uuid4().hex[:8]}"
        size = ("-x", str(_COLUMNS), "-y", str(_LINES))
        environment = {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        given = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        self._tmux("new-session", "-d", *size, *given, "-c", str(directory), "bash --norc")
        self.type(f'PS1="$ "; lifecycle() {{ {sys.executable} -m client.cli "$@"; }}; clear')

    def type(self, line: str) -> None:
        """Type a line, and the return key."""
        self._tmux("send-keys", line, "Enter")

    def key(self, name: str) -> None:
        """Press one key."""
        self._tmux("send-keys", name)

    def until(self, text: str, seconds: float = 60) -> str:
        """Wait until a text is to be seen, and return all that is."""
        wait_until(lambda: text in self.shown(), seconds, what=f"{text!r} on\n{self.shown()}")
        return self.shown()

    def shown(self) -> str:
        """Return what is on the screen, and what has left it at the top."""
        text = self._tmux("capture-pane", "-p", "-S", "-100")
        lines = text.replace(str(self._directory), "~").splitlines()
        return "\n".join(line.rstrip() for line in lines).strip() + "\n"

    def clear(self) -> None:
        """Begin with an empty screen."""
        self.type("clear && tmux clear-history")
        wait_until(lambda: self.shown().strip() == "$", 30, what="the screen is empty")

    def close(self) -> None:
        """End the terminal."""
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-f", os.devnull, "-L", self._socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def screen(directory: Path) -> Iterator[Screen]:
    """Open a terminal for the length of a block."""
    made = Screen(directory)
    try:
        yield made
    finally:
        made.close()


def record() -> None:
    """Renew all recordings."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with screen(place) as stack, screen(place) as user:
            stack.clear()
            stack.type("lifecycle demo --keep --free-ports")
            try:
                _keep("demo", stack.until("The stack stays up", _START_SECONDS))
                running = DataDirectory(place / ".lifecycle").running()
                assert running
                _publish_large(place)
                _record_commands(user, running)
            finally:
                stack.key("C-c")
                stack.until("Stopped.", 90)


def _record_commands(user: Screen, running: StackRecord) -> None:
    for name, command, seen in (
        ("download", f"lifecycle models download {_LARGE}", "MB/s"),
        ("infer", "lifecycle infer tiny-chat --chat 'What is lakeFS?'", "tokens/s"),
        ("models-ls", "lifecycle models ls", "tiny-chat"),
        ("jobs-ls", "lifecycle jobs ls", "batch"),
        ("doctor", "lifecycle doctor", "GPU workers"),
    ):
        if name == "jobs-ls":
            _run(user, "lifecycle models batch demo/tiny-chat demo/none", "Try it again")
        if name == "doctor":
            with _frozen(running, "lakefs"):
                _keep(name, _run(user, command, seen))
        else:
            _keep(name, _run(user, command, seen))
        if name == "download":
            user.until("✓")
            _record_detach(user)


def _record_detach(user: Screen) -> None:
    """Leave an upload by Ctrl-C, and come back."""
    _run(user, f"lifecycle models upload {_LARGE.replace('/', '_')} --repo large", "MB/s")
    user.key("C-c")
    left = user.until("jobs cancel")
    wait_until(lambda: user.shown().endswith("\n$\n"), 60, what="the prompt is back")
    job_id = left.split("jobs watch ")[1].split()[0]
    user.type(f"lifecycle jobs watch {job_id}")
    _keep("detach-and-watch", user.until("✓ commit", 120))


def _run(user: Screen, command: str, seen: str) -> str:
    user.clear()
    user.type(command)
    return user.until(seen)


@contextmanager
def _frozen(running: StackRecord, name: str) -> Iterator[None]:
    pid = running.component(name).pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _publish_large(place: Path) -> None:
    """Publish a model that is long enough on its way to be watched."""
    directory = place / "large"
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    noise = os.urandom(1024 * 1024)
    with (directory / "model.safetensors").open("wb") as file:
        for number in range(_LARGE_MIB):
            file.write(number.to_bytes(8) + noise[8:])
    publish(place / ".lifecycle" / "hub", _LARGE, directory)


def _keep(name: str, text: str) -> None:
    (TARGET / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    record()
