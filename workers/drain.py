"""The end of a worker: no more claims, a grace time for what runs, and the rest given back."""

import os
import threading

import structlog
from celery.worker import state

from shared.errors import UnavailableError
from shared.ledger import Ledger, Presence
from workers.heartbeat import Heartbeat
from workers.reconciler import Reconciler
from workers.runner import Runner

#: Told to stop, a job reaches its next checkpoint within this time.
STOP_SECONDS = 3.0
#: Who leaves is missed: its jobs get this much grace at most.
LEAVE_SECONDS = 3.0
#: What a process ends with when another should take its place.
REPLACE_STATUS = os.EX_TEMPFAIL

log = structlog.get_logger()


class Drain:
    """Happens once, however often it is asked for."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        presence: Presence,
        heartbeat: Heartbeat,
        runner: Runner,
        reconciler: Reconciler,
        grace_seconds: float,
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._presence = presence
        self._heartbeat = heartbeat
        self._runner = runner
        self._reconciler = reconciler
        self._grace_seconds = grace_seconds
        self._once = threading.Lock()

    @property
    def begun(self) -> bool:
        """Whether this worker is on its way out."""
        return self._once.locked()

    def begin(self) -> None:
        """Give running jobs their grace time; Celery, which was told to stop too, then ends."""
        if self._once.acquire(blocking=False):
            # In a thread: a signal's handler must not wait, nor write where it may have interrupted
            # a write.
            threading.Thread(target=self._drain, name="Drain", daemon=True).start()

    def leave(self, reason: str) -> None:
        """Do the same and end the process, for a supervisor to start another; does not return."""
        if self._once.acquire(blocking=False):
            log.error("worker leaves", name=self._name, reason=reason, status=REPLACE_STATUS)
            # Celery's own order to stop: it consumes no more, if it still does anything.
            state.should_stop = REPLACE_STATUS
            self._end(min(self._grace_seconds, LEAVE_SECONDS))
            os._exit(REPLACE_STATUS)

    def _drain(self) -> None:
        log.info("worker draining", name=self._name)
        self._end(self._grace_seconds)

    def _end(self, grace_seconds: float) -> None:
        self._runner.stop_claiming()
        drained = self._heartbeat.drain(grace_seconds, STOP_SECONDS)
        self._reconciler.stop()
        self._heartbeat.stop()
        self._give_back()
        if not drained:
            # A hung thread would keep Celery's own shutdown waiting for ever.
            os._exit(state.should_stop or 0)

    def _give_back(self) -> None:
        try:
            for running in self._heartbeat.running():
                self._ledger.requeue(running.job, counts=False)
            self._presence.leave(self._name)
        except UnavailableError as error:
            log.warning("leases not given back", reason=error.detail)
