"""Ends a worker that cannot do its work any longer, so that another can take its place.

Three things end it, each with what runs given back or failed as it should:

- a job that does not stop although it was told to (cancelled, or past its deadline),
- a consumer that is deaf to the broker,
- silence: code that holds Python's lock lets no thread run, this one neither. For that case a
  timer in C (`faulthandler`) is put off at each heartbeat; when it fires it prints what every
  thread was doing and ends the process. The leases have run out by then.
"""

import faulthandler
import sys
import time
import traceback
from collections.abc import Callable

import structlog

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DeadlineExceededError,
    LeaseLostError,
    UnavailableError,
)
from shared.jobs import Job, JobState
from shared.ledger import Ledger
from shared.settings import WorkerSettings
from workers.hearing import Hearing
from workers.heartbeat import Heartbeat, RunningJob

_LOOK_SECONDS = 1.0

log = structlog.get_logger()


def put_off_end(seconds: float) -> None:
    """End this process unless it is called again within that time, whatever holds Python's lock."""
    faulthandler.dump_traceback_later(seconds, exit=True)


class Watchdog:
    """A thread that looks every second."""

    def __init__(
        self,
        ledger: Ledger,
        heartbeat: Heartbeat,
        hearing: Hearing,
        settings: WorkerSettings,
        *,
        broker_answers: Callable[[], bool],
        leave: Callable[[str], None],
    ) -> None:
        """``leave`` gives the other jobs back and ends the process; it is told why."""
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._hearing = hearing
        self._settings = settings
        self._broker_answers = broker_answers
        self._leave = leave

    def run(self) -> None:
        """Look until the process must end; the body of a thread."""
        while not (reason := self.look()):
            time.sleep(_LOOK_SECONDS)
        self._leave(reason)

    def look(self) -> str | None:
        """Look once; return why the process must end, if it must."""
        stuck = [each for each in self._heartbeat.running() if self._is_stuck(each)]
        given_up = [each.job.id for each in stuck if self._give_up(each)]
        if given_up:
            return f"work that does not stop: {', '.join(given_up)}"
        return self._deafness()

    def _is_stuck(self, running: RunningJob) -> bool:
        return running.token.cancelled_seconds > self._settings.stuck_seconds

    def _give_up(self, running: RunningJob) -> bool:
        """Write down how a job ends that does not; return whether that is done."""
        try:
            _write_end(self._ledger, running.job, running.token)
        except UnavailableError as error:
            log.warning("end of stuck work not written yet", reason=error.detail)
            return False
        log.error("work does not stop", job_id=running.job.id, stack=_stack(running.thread))
        self._heartbeat.forget(running)
        return True

    def _deafness(self) -> str | None:
        seconds = self._hearing.look()
        if seconds < self._settings.deaf_seconds:
            return None
        if not self._broker_answers():
            self._hearing.excuse()
            return None
        return f"a consumer that has asked the broker for nothing for {seconds:.0f} s"


def _write_end(ledger: Ledger, job: Job, token: CancelToken) -> None:
    reason = token.reason
    if isinstance(reason, CancelledError):
        ledger.finish(job, JobState.CANCELLED)
    elif isinstance(reason, DeadlineExceededError):
        ledger.finish(job, JobState.FAILED, error=reason.info())
    elif not isinstance(reason, LeaseLostError):
        ledger.requeue(job, counts=False)


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, in spite of its name
    return "".join(traceback.format_stack(frame)) if frame else "the thread has ended"
