"""What a person sees while the stack starts, runs and stops."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from embedded.service import Change, Component, Phase

_STYLES = {
    Phase.WAITING: "dim",
    Phase.STARTING: "cyan",
    Phase.HEALTHY: "green",
    Phase.DOWN: "yellow",
    Phase.STOPPING: "cyan",
    Phase.STOPPED: "dim",
}
_MARKS = {Phase.WAITING: "·", Phase.HEALTHY: "✓", Phase.DOWN: "!", Phase.STOPPED: "·"}


@dataclass
class _Row:
    title: str
    phase: Phase
    detail: str
    since: float


class _Console(Console):
    """A console whose reader may leave without ending the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Screen:
    """Shows changes: as a table that moves on a terminal, as one line each elsewhere.

    A context manager around the life of the stack. The table moves from its beginning to `pause`,
    and from `resume` to its end.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _Console(highlight=False)
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self.resume("Starting")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pause()
        self.say("Stopped.")

    def resume(self, heading: str) -> None:
        """Have the table move, under a new heading."""
        self.pause()
        self._rows.clear()
        self.say(f"[bold]{heading}[/]")
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=self._table,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()

    def pause(self) -> None:
        """Take the table away; changes are printed as lines from here on."""
        if self._live:
            with suppress(OSError):
                self._live.stop()
            self._live = None

    def on_change(self, change: Change) -> None:
        """Show that a service has entered a phase."""
        component = change.service.component
        detail = change.detail
        if change.phase is Phase.HEALTHY:
            detail = f"{component.address} ({change.seconds:.1f} s)"
        self.show(component.name, component.title, change.phase, detail)

    def show(self, name: str, title: str, phase: Phase, detail: str = "") -> None:
        """Show how far a part is."""
        self._rows[name] = _Row(title, phase, detail, time.monotonic())
        if self._live is None and phase not in {Phase.WAITING, Phase.STOPPING}:
            mark = f"[{_STYLES[phase]}]{_MARKS.get(phase, '·')} {title:<12} {phase.value:<9}[/]"
            self.say(f"{mark} {detail}".rstrip())

    def say(self, message: str) -> None:
        """Print a line, above what moves."""
        with suppress(OSError):  # nobody reads any longer, but the stack goes on, or stops well
            self.console.print(message, soft_wrap=True)

    def fail(self, message: str) -> None:
        """Print why the command failed."""
        self.console.print(message, style="red", markup=False, soft_wrap=True)

    def addresses(self, components: Sequence[Component], logs: Path) -> None:
        """Print where everything is."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for heading in ("Part", "Address", "Process", "Note"):
            table.add_column(heading, overflow="fold")
        for component in components:
            pid = str(component.pid) if component.pid else "-"
            table.add_row(component.title, component.address, pid, component.note)
        self.console.print(table)
        self.console.print(f"Logs are in {logs}", style="dim", soft_wrap=True)

    def _table(self) -> Group:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for row in self._rows.values():
            waited = time.monotonic() - row.since
            if row.phase in _MARKS:
                mark: Text | Spinner = Text(_MARKS[row.phase], style=_STYLES[row.phase])
                detail = row.detail
            else:
                mark, detail = Spinner("dots", style="cyan"), row.detail or f"{waited:.0f} s"
            grid.add_row(mark, row.title, Text(row.phase.value, style=_STYLES[row.phase]), detail)
        return Group(grid)
