"""A stack that runs in this process: its supervisor, warden and record."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from embedded.data_directory import DataDirectory, StackRecord
from embedded.errors import OutsideError
from embedded.screen import Screen
from embedded.service import Change, Component
from embedded.session import Session
from embedded.stack import Stack
from embedded.supervisor import Supervisor
from embedded.warden import Warden

#: The order in which people look for addresses.
_ORDER = ("api", "mlflow", "lakefs", "flower", "hub", "redis", "ollama", "worker")


def _place(part: Component) -> tuple[int, str]:
    return _ORDER.index(part.name.partition("-")[0]), part.name


class RunningStack:
    """What runs now, written down at every change."""

    def __init__(self, stack: Stack, directory: DataDirectory, screen: Screen) -> None:
        self._directory = directory
        self._screen = screen
        self._hub = stack.hub
        started = [service.component for service in stack.services]
        self._components = {part.name: part for part in (*stack.outside, *started)}

    @property
    def record(self) -> StackRecord:
        """The parts as of now."""
        components = sorted(self._components.values(), key=_place)
        return StackRecord(pid=os.getpid(), hub=self._hub, components=tuple(components))

    def on_change(self, change: Change) -> None:
        """Take note of a service's change, and show it."""
        part = change.service.component
        self._components[part.name] = part.model_copy(update={"pid": change.pid})
        with suppress(OSError):  # a full disk costs the record, not the stack
            self._directory.write(self.record)
        self._screen.on_change(change)


@asynccontextmanager
async def running(
    stack: Stack, session: Session, lock: int
) -> AsyncIterator[tuple[RunningStack, Supervisor]]:
    """Run the stack's services for the length of a block; it is entered before they are healthy."""
    await _check_outside(stack.outside)
    directory, screen, interrupts = session.directory, session.screen, session.interrupts
    running_stack = RunningStack(stack, directory, screen)
    # The warden holds the lock as well: nobody takes the directory before all are dead.
    with Warden(keep_open=[lock]) as warden, screen:
        supervisor = Supervisor(stack.services, directory.logs, warden, running_stack.on_change)
        async with supervisor:
            try:
                yield running_stack, supervisor
            finally:
                # From here on a signal says that somebody does not want to wait.
                interrupts.action = supervisor.kill
                screen.resume("Stopping; once more to kill" if interrupts.heard else "Stopping")


async def _check_outside(components: Sequence[Component]) -> None:
    """Say now what would otherwise be found out by waiting."""
    for component in components:
        if component.name != "ollama" and not await asyncio.to_thread(component.probe.healthy):
            raise OutsideError(
                f"{component.title} is set to {component.address}, which does not answer."
            )
