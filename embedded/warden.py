"""Kills what a supervisor leaves behind when it is killed itself.

A leash (`leash.py`) holds a supervisor's children, but not what those start in turn, as MLflow
starts its web server. The warden is a process of its own that hears over a pipe which process
groups live. When the pipe ends, the supervisor is gone: by `kill -9`, or in good order with no
group left.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self


class Warden:
    """The supervisor's end of the pipe; a context manager that ends the warden's process."""

    def __init__(self, keep_open: Iterable[int] = ()) -> None:
        """Start the process; it keeps these descriptors, and the locks on them, to its end."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C on the terminal is not for it
            pass_fds=tuple(keep_open),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    def watch(self, group: int) -> None:
        """Have a process group killed when the supervisor goes."""
        self._say(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Say that a process group has ended."""
        self._say(f"-{group}\n")

    def _say(self, line: str) -> None:
        # Somebody may have killed the warden; the leashes still hold.
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None  # noqa: S101 - it is a pipe
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def main() -> None:
    """Listen until the supervisor goes, then kill what is left."""
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
