"""The shutdown of a worker: no more claims, a grace time for what runs, the rest given back."""

import os
import threading
from collections.abc import Callable, Sequence

import structlog
from celery.worker import state

from shared.errors import UnavailableError
from shared.ledger import Ledger, Presence
from workers.process.heartbeat import Heartbeat
from workers.process.slots import Slots

#: A job that is told to stop reaches its next checkpoint within this time.
STOP_SECONDS = 3.0
#: The longest grace time of a worker that leaves because it is not well.
LEAVE_SECONDS = 3.0
#: The exit status of a process that another should replace.
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
        slots: Sequence[Slots],
        stop_others: Callable[[], None],
        grace_seconds: float,
    ) -> None:
        """``stop_others`` ends what else the worker does in threads."""
        self._name = name
        self._ledger = ledger
        self._presence = presence
        self._heartbeat = heartbeat
        self._slots = slots
        self._stop_others = stop_others
        self._grace_seconds = grace_seconds
        self._once = threading.Lock()
        self._done = threading.Event()

    @property
    def begun(self) -> bool:
        """Whether this worker shuts down."""
        return self._once.locked()

    def begin(self) -> None:
        """Give running jobs their grace time; Celery, which was told to stop too, then ends."""
        if self._once.acquire(blocking=False):
            # In a thread: the handler of a signal must not wait, nor write where it may have
            # interrupted a write.
            threading.Thread(target=self._drain, name="Drain", daemon=True).start()

    def wait(self) -> None:
        """Wait until all jobs have ended or were given back."""
        self._done.wait()

    def leave(self, reason: str) -> None:
        """Drain quickly and end the process, for a supervisor to start another."""
        if self._once.acquire(blocking=False):
            log.error("worker leaves", name=self._name, reason=reason, status=REPLACE_STATUS)
            # Celery's own order to stop, for as far as it still does anything.
            state.should_stop = REPLACE_STATUS
            self._end(min(self._grace_seconds, LEAVE_SECONDS))
            os._exit(REPLACE_STATUS)

    def _drain(self) -> None:
        log.info("worker draining", name=self._name)
        self._end(self._grace_seconds)

    def _end(self, grace_seconds: float) -> None:
        for slots in self._slots:
            slots.stop()
        drained = self._wait(grace_seconds)
        if not drained:
            self._heartbeat.stop_work()
            drained = self._wait(STOP_SECONDS)
        self._heartbeat.stop()
        self._give_back()
        self._stop_others()
        if not drained:
            # Whatever hangs would keep the process from ending.
            os._exit(state.should_stop or 0)
        self._done.set()

    def _wait(self, seconds: float) -> bool:
        """Wait for the ends of all runs; slots that claim right now end their claim first."""
        waits = [threading.Thread(target=slots.wait, args=(seconds,)) for slots in self._slots]
        for wait in waits:
            wait.start()
        for wait in waits:
            wait.join()
        return all(slots.wait(0) for slots in self._slots)

    def _give_back(self) -> None:
        try:
            for running in self._heartbeat.running():
                self._ledger.requeue(running.job, counts=False)
            self._ledger.renew(self._name, (), {})  # no model is warm here any more
            self._presence.leave(self._name)
        except UnavailableError as error:
            log.warning("leases not given back", reason=error.detail)
