"""One command at the terminal: its directory, its screen, and the signals that end it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from embedded.data_directory import DataDirectory
from embedded.errors import StackError
from embedded.screen import Screen

#: The shell's status of a program that a Ctrl-C kept from its end.
INTERRUPTED = 130


class Interrupts:
    """Ctrl-C, SIGTERM and the end of the terminal; each calls `action`."""

    action: Callable[[], object]

    def __init__(self) -> None:
        """Have them cancel the task that creates this, until `action` is set to something else."""
        self.heard = False
        #: What the command ends with when one comes.
        self.status = INTERRUPTED
        task = asyncio.current_task()
        assert task  # noqa: S101 - made in a coroutine
        self.action = task.cancel
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        self.heard = True
        self.action()


@dataclass(frozen=True)
class Session:
    """What a command works with."""

    directory: DataDirectory
    screen: Screen
    interrupts: Interrupts


def run_session(data_dir: Path, work: Callable[[Session], Awaitable[None]]) -> int:
    """Do the work of a command until it ends or a signal comes; return its exit status."""
    screen = Screen()

    async def run() -> int:
        interrupts = Interrupts()
        try:
            await work(Session(DataDirectory(data_dir), screen, interrupts))
        except asyncio.CancelledError:
            if not interrupts.heard:
                raise
            return interrupts.status
        return 0

    try:
        return asyncio.run(run())
    except StackError as error:
        screen.fail(str(error))
        return 1
