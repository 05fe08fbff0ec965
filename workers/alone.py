"""The child's side of a quarantine: does the one job that its parent claimed, and ends."""

import os
import signal
import threading
from contextlib import suppress

import structlog

from shared.errors import UnavailableError
from shared.jobs import JobState
from shared.ledger import Ledger
from shared.settings import LedgerSettings
from workers.heartbeat import Heartbeat
from workers.runner import JobFailedError, Runner

#: Told to stop, the job reaches its next checkpoint within this time.
STOP_SECONDS = 2.0

log = structlog.get_logger()


class Alone:
    """Runs one job, and gives it back when told to stop or when the parent is gone."""

    def __init__(
        self, ledger: Ledger, heartbeat: Heartbeat, runner: Runner, settings: LedgerSettings
    ) -> None:
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._runner = runner
        self._settings = settings

    def run(self, job_id: str, fence: int, parent: int) -> None:
        """Do the job if the claim still holds; ``parent`` is the process that made it."""
        job = self._ledger.get(job_id)
        if job.state is not JobState.RUNNING or job.fence != fence:
            return
        done = threading.Event()

        def work() -> None:
            with suppress(JobFailedError):
                self._runner.do(job)
            done.set()

        # In a thread: the handler of a signal must not wait.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=self._give_back).start())
        for target in (self._heartbeat.run, work):
            threading.Thread(target=target, daemon=True).start()
        while os.getppid() == parent:
            if done.wait(self._settings.heartbeat_seconds):
                return
        self._give_back()

    def _give_back(self) -> None:
        """Return the job, to no blame of its own, and end, whatever hangs."""
        log.info("alone no more")
        self._heartbeat.drain(0, STOP_SECONDS)
        try:
            for running in self._heartbeat.running():
                self._ledger.requeue(running.job, counts=False)
        except UnavailableError as error:
            log.warning("lease not given back", reason=error.detail)
        os._exit(0)
