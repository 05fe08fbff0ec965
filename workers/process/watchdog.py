"""Ends a worker that cannot do its work any longer, so that another can take its place.

Three things end it; what runs is given back, or failed as it should be:

- a job that does not stop although it was told to (cancelled, or past its deadline),
- an idle slot, or Celery's event loop, that does nothing any more,
- code that holds Python's lock, so that no thread runs, this one neither. For that case a timer in
  C (`faulthandler`) is postponed at each heartbeat; when it fires it prints what every thread was
  doing and ends the process. The leases have run out by then.
"""

import faulthandler
import sys
import time
import traceback
from collections.abc import Callable, Mapping

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
from workers.process.heartbeat import Heartbeat, RunningJob

_LOOK_SECONDS = 1.0
#: The longest time between two looks of a process that was not asleep itself.
_LONGEST_LOOK_SECONDS = 2.0
#: Silence for less long than this is normal.
_QUIET_SECONDS = 5.0

#: Returns the last sign of life of a part, in the seconds of ``time.monotonic``.
Pulse = Callable[[], float]

log = structlog.get_logger()


def postpone_exit(seconds: float) -> None:
    """End this process unless this is called again within that time, whatever holds the lock."""
    faulthandler.dump_traceback_later(seconds, exit=True)


class ConsumerLiveness:
    """Counts for how long a part of the worker has given no sign of life."""

    def __init__(self, pulses: Mapping[str, Pulse]) -> None:
        """``pulses`` has a pulse for each part; its name completes a sentence."""
        self._pulses = pulses
        self._seen = dict.fromkeys(pulses, 0.0)
        self._silent = dict.fromkeys(pulses, 0.0)
        self._looked_at = time.monotonic()

    @property
    def consuming(self) -> bool:
        """Whether all parts gave a sign of life lately."""
        return max(self._silent.values()) < _QUIET_SECONDS

    def look(self) -> tuple[str, float]:
        """Return the part that was silent for longest, and for how long; call it each second."""
        now = time.monotonic()
        # The time in which this whole process slept says nothing about its parts.
        elapsed = min(now - self._looked_at, _LONGEST_LOOK_SECONDS)
        self._looked_at = now
        for part, pulse in self._pulses.items():
            seen = pulse()
            is_alive = seen > self._seen[part]
            self._seen[part] = seen
            self._silent[part] = 0.0 if is_alive else self._silent[part] + elapsed
        return max(self._silent.items(), key=lambda each: each[1])

    def excuse(self) -> None:
        """Count anew, because the silence had another cause."""
        self._silent = dict.fromkeys(self._silent, 0.0)


class Watchdog:
    """A thread that looks every second."""

    def __init__(
        self,
        ledger: Ledger,
        heartbeat: Heartbeat,
        liveness: ConsumerLiveness,
        settings: WorkerSettings,
        *,
        redis_answers: Callable[[], bool],
        leave: Callable[[str], None],
    ) -> None:
        """``leave`` gives the other jobs back and ends the process; it is told why."""
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._liveness = liveness
        self._settings = settings
        self._redis_answers = redis_answers
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
        return self._silence()

    def _is_stuck(self, running: RunningJob) -> bool:
        # A run whose end waits for Redis has stopped.
        return not running.over and running.cancel.cancelled_seconds > self._settings.stuck_seconds

    def _give_up(self, running: RunningJob) -> bool:
        """Write how a job ends that does not stop; return whether that is written."""
        try:
            _write_end(self._ledger, running.job, running.cancel)
        except UnavailableError as error:
            log.warning("end of stuck work not written yet", reason=error.detail)
            return False
        log.error("work does not stop", job_id=running.job.id, stack=_stack(running.thread))
        self._heartbeat.forget(running)
        return True

    def _silence(self) -> str | None:
        part, seconds = self._liveness.look()
        longest = self._settings.deaf_seconds
        if seconds < min(_QUIET_SECONDS, longest):
            return None
        # Silence counts only while Redis answers: after an outage the parts need time to connect.
        if not self._redis_answers():
            self._liveness.excuse()
            return None
        return f"{part} has done nothing for {seconds:.0f} s" if seconds >= longest else None


def _write_end(ledger: Ledger, job: Job, cancel: CancelToken) -> None:
    reason = cancel.reason
    if isinstance(reason, CancelledError):
        ledger.finish(job, JobState.CANCELLED)
    elif isinstance(reason, DeadlineExceededError):
        ledger.finish(job, JobState.FAILED, error=reason.info())
    elif not isinstance(reason, LeaseLostError):
        ledger.requeue(job, counts=False)


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, in spite of its name
    return "".join(traceback.format_stack(frame)) if frame else "the thread has ended"
