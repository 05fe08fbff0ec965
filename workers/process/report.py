"""What a worker reports of itself: a thread computes it, and the heartbeat announces it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from shared.errors import UnavailableError
from shared.ledger import Presence, WorkerInfo

#: Returns what the worker's engines and cache report.
Status = Callable[[], dict[str, Any]]
#: A report that took longer than this to compute says how old it is.
LATE_SECONDS = 10.0
#: An end waits at most this long for the report of what its run changed.
FLUSH_SECONDS = 1.0

log = structlog.get_logger()


class WorkerReport:
    """The last report of a worker. Engines can delay it, but not the heartbeat."""

    def __init__(
        self,
        presence: Presence,
        worker: WorkerInfo,
        status: Status,
        own_status: Status,
        every_seconds: float,
    ) -> None:
        """``own_status`` is computed at each announcement, so it must not block."""
        self._presence = presence
        self._worker = worker
        self._status = status
        self._own_status = own_status
        self._every_seconds = every_seconds
        self._last: dict[str, Any] = {}
        self._computed_at = time.monotonic()
        self._error: str | None = None
        self._stopped = False
        self._changed = threading.Condition()
        #: Counts the changes; a report shows all changes up to a number.
        self._changes = 0
        self._shown = 0

    def run(self) -> None:
        """Compute reports until stopped; the body of a thread."""
        while not self._stopped:
            with self._changed:
                changes = self._changes
            self._compute()
            try:
                if changes > self._shown or not self._shown:
                    self.announce()
            except UnavailableError as error:
                log.warning("not announced", reason=error.detail)
            with self._changed:
                self._shown = changes
                self._changed.notify_all()
                self._changed.wait_for(self._is_due, self._every_seconds)

    def changed(self) -> None:
        """Write the report soon, because what it shows has changed."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until the report shows all changes so far, but not for long."""
        with self._changed:
            changes = self._changes
            self._changed.wait_for(lambda: self._stopped or self._shown >= changes, FLUSH_SECONDS)

    def announce(self) -> None:
        """Announce the worker with the last report."""
        status = {**self._last, **self._own_status()}
        if self._error is not None:
            status["report_error"] = self._error
        age = time.monotonic() - self._computed_at
        if age > LATE_SECONDS:
            status["report_age_seconds"] = round(age, 1)
        worker = self._worker
        self._presence.announce(WorkerInfo(worker.name, worker.kind, worker.host, status))

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _is_due(self) -> bool:
        return self._stopped or self._changes > self._shown

    def _compute(self) -> None:
        try:
            self._last, self._error = self._status(), None
        except Exception as error:
            # A plugin's code: the worker is announced all the same.
            log.exception("report not computed")
            self._error = f"{type(error).__name__}: {error}"
        self._computed_at = time.monotonic()
