"""What a running job sees of the platform: its request, its cancellation, and where to report."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from shared.cancellation import CancelToken, CommitToken
from shared.interruptible import interrupted_by
from shared.jobs import Job, JobKind, Progress
from shared.ledger import NewJob

#: Progress is written at most this often.
REPORT_SECONDS = 0.25


class JobContext:
    """Handed to the work; safe to use from several threads of one job."""

    def __init__(
        self,
        job: Job,
        cancel: CancelToken,
        write_progress: Callable[[Progress], None],
        write_text: Callable[[str], None],
        write_thought: Callable[[str], None] | None = None,
    ) -> None:
        self.job = job
        self.cancel = cancel
        self._write_progress = write_progress
        self._write_text = write_text
        self._write_thought = write_thought
        self._lock = threading.Lock()
        self._reported_at = 0.0
        self._latest: Progress | None = None
        self._pending = False

    def check(self) -> None:
        """Raise if the work must stop."""
        self.cancel.check()

    @contextmanager
    def committing(self, seconds: float) -> Iterator["JobContext"]:
        """Yield a context for work that a cancellation should not leave half done.

        The work has ``seconds`` to end after a cancellation. It must stop at once when another run
        of the job follows.
        """
        with CommitToken(self.cancel, seconds).listening() as commit, interrupted_by(commit):
            yield JobContext(self.job, commit, self._write_progress, self._write_text)

    def report(self, completed: int, total: int | None, unit: str, message: str = "") -> None:
        """Say how far the work is; what comes too often is held back until ``flush``."""
        progress = Progress(completed=completed, total=total, unit=unit, message=message)
        with self._lock:
            self._latest = progress
            now = time.monotonic()
            self._pending = now - self._reported_at < REPORT_SECONDS
            if self._pending:
                return
            self._reported_at = now
        self._write_progress(progress)

    def flush(self) -> None:
        """Write the progress that was held back, so that it ends exact."""
        with self._lock:
            progress, pending = self._latest, self._pending
            self._pending = False
        if pending and progress is not None:
            self._write_progress(progress)

    def emit(self, text: str) -> None:
        """Stream a piece of generated text to the job's events."""
        self._write_text(text)

    def emit_thought(self, text: str) -> None:
        """Stream a piece of what a model thinks before it answers to the job's events."""
        if self._write_thought is not None:
            self._write_thought(text)


#: What a work returns: the job's result, or the child that must end before the job goes on.
Outcome = dict[str, Any] | NewJob | Job
#: The work of one kind of job.
Work = Callable[[JobContext], Outcome]


class ModelAffinity(Protocol):
    """The models of a GPU worker, by the affinity of the jobs that use them."""

    def warm_models(self) -> Mapping[str, int]:
        """Return the models that are warm, each with the jobs that a slot takes at once."""

    def load_seconds(self) -> Mapping[str, float]:
        """Return the models that are warm, each with the seconds that a load takes (0: unknown)."""

    def may_load(self) -> bool:
        """Return whether another model may be loaded now."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back whenever one of the answers changes."""


class Background(Protocol):
    """What a worker does in a thread of its own."""

    def run(self) -> None:
        """Go on until the worker ends."""


@dataclass(frozen=True)
class WorkerParts:
    """What a kind of worker does."""

    works: Mapping[JobKind, Work]
    #: Returns what the worker reports of its engines and its cache.
    status: Callable[[], dict[str, Any]] = dict
    #: None for workers without models.
    models: ModelAffinity | None = None
    background: tuple[Background, ...] = ()
