"""What keeps a stack from running.

StackError
├── InUseError      another stack runs on the directory
├── OutsideError    a part that was to come from outside does not answer
├── StartError      a service did not come up
├── InstallError    the real lakeFS could not be installed
├── MoveError       the data of the embedded lakeFS could not be moved
└── DemoError       the demonstration did not go as it should
"""

from pathlib import Path


class StackError(Exception):
    """The root; the message is for the person at the terminal."""


class InUseError(StackError):
    """Another stack runs on the directory."""


class OutsideError(StackError):
    """A part that was to come from outside does not answer."""


class StartError(StackError):
    """A service did not come up."""

    def __init__(self, title: str, reason: str, log: Path) -> None:
        super().__init__(f"{title} did not start: {reason}. The end of {log}:\n{_tail(log)}")


class InstallError(StackError):
    """The real lakeFS could not be installed."""


class MoveError(StackError):
    """The data of the embedded lakeFS could not be moved."""


class DemoError(StackError):
    """The demonstration did not go as it should."""


def _tail(log: Path, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(it is empty)"
