"""Jobs that go on, a row for each: bars on a terminal, lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text

from client.answers import JobState, Progress

MARKS = {
    JobState.QUEUED: ("·", "dim"),
    JobState.SUCCEEDED: ("✓", "green"),
    JobState.FAILED: ("✗", "red"),
    JobState.CANCELLED: ("✗", "yellow"),
}
#: A reader that is no terminal hears of progress this often.
_LINE_SECONDS = 10.0


def amount(progress: Progress) -> str:
    """Return how far something is, as people say it."""
    done, total, unit = progress.completed, progress.total, progress.unit
    if unit != "bytes":
        return f"{done} of {total} {unit}" if total else f"{done} {unit}"
    if not total:
        return filesize.decimal(done)
    size = filesize.decimal(total)
    _, _, suffix = size.partition(" ")
    step = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}.get(suffix, 1e12)
    return f"{done / step:.0f} of {size}" if step == 1 else f"{done / step:.1f} of {size}"


class _Mark(ProgressColumn):
    """Spins while a job runs."""

    def __init__(self) -> None:
        super().__init__()
        self._spinner = Spinner("dots", style="cyan")

    def render(self, task: Task) -> Spinner | Text:
        state = task.fields["state"]
        return Text(*MARKS[state]) if state in MARKS else self._spinner


class _Amount(ProgressColumn):
    """Bytes, files or jobs done, and of how many."""

    max_refresh = 0.25

    def render(self, task: Task) -> Text:
        progress: Progress | None = task.fields["progress"]
        state: JobState = task.fields["state"]
        return Text(amount(progress) if progress else state.value, style="dim", no_wrap=True)


class _Rate(ProgressColumn):
    """Units each second, of what takes long enough to have a rate."""

    max_refresh = 0.25

    def render(self, task: Task) -> Text:
        progress: Progress | None = task.fields["progress"]
        if not progress or not task.speed or task.fields["state"] is not JobState.RUNNING:
            return Text()
        if progress.unit == "bytes":
            return Text(f"{filesize.decimal(int(task.speed))}/s", style="cyan")
        return Text(f"{task.speed:.1f}/s", style="cyan")


class Board:
    """Shows jobs by a key of each; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, tuple[JobState, float]] = {}
        self._bars = Bars(
            _Mark(),
            _Title(),
            BarColumn(bar_width=16),
            _Amount(Column(no_wrap=True)),
            _Rate(Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def put(self, key: str, title: str, state: JobState, progress: Progress | None) -> None:
        """Show a job as it is now."""
        if self._bars.disable:
            self._say(key, title, state, progress)
            return
        done = progress.completed if progress else 0
        # Of nothing known the bar pulses.
        total = progress.total if progress else 1 if state is not JobState.RUNNING else None
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(
                title, completed=done, total=total, state=state, progress=progress
            )
            return
        self._bars.update(
            self._tasks[key],
            description=title,
            completed=done,
            total=total,
            state=state,
            progress=progress,
        )

    def keep(self, keys: set[str]) -> None:
        """Take all other rows away."""
        for key in self._tasks.keys() - keys:
            self._bars.remove_task(self._tasks.pop(key))

    def _say(self, key: str, title: str, state: JobState, progress: Progress | None) -> None:
        said, at = self._said.get(key, (None, 0.0))
        now = time.monotonic()
        if said is state and (state is not JobState.RUNNING or now - at < _LINE_SECONDS):
            return
        self._said[key] = (state, now)
        shown = f" {amount(progress)}" if progress and said is state else ""
        self._console.print(f"{title}: {state.value}{shown}", soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


class _Title(ProgressColumn):
    """What is worked on, cut in its middle: names differ at their ends."""

    _WIDTH = 22

    def render(self, task: Task) -> Text:
        title = task.description
        if len(title) > self._WIDTH:
            kept = self._WIDTH // 2
            title = f"{title[: self._WIDTH - kept - 1]}…{title[-kept:]}"
        return Text(f"{title:<{self._WIDTH}}", no_wrap=True)
