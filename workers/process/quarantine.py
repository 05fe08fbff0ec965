"""Runs a job that lost workers in a process of its own, so that nothing else is lost with it.

The worker claims the job and renews its lease, so it learns of a crash at once and can tell the
ledger whose it was, however the child ends: killed, by ``_exit``, or hung and killed from here.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import structlog

from shared.cancellation import CancelToken
from shared.errors import DrainingError, ErrorInfo, LifecycleError, UnavailableError
from shared.jobs import Job, JobState
from shared.ledger import Ledger
from shared.settings import LedgerSettings
from workers.process.heartbeat import Heartbeat, RunningJob
from workers.process.runner import NextWant, Runner, RunOutcome, nothing

#: How often the parent looks whether its child must stop; it notices the child's end at once.
LOOK_SECONDS = 0.5
#: A child that was told to stop is killed after this time.
KILL_SECONDS = 10.0
#: A job that is told to stop reaches its next checkpoint within this time.
STOP_SECONDS = 2.0

log = structlog.get_logger()


def own_command() -> list[str]:
    """Return the command that started this process."""
    return [sys.executable, *sys.orig_argv[1:]]


class QuarantineRunner:
    """Runs a claimed job in a child process."""

    def __init__(self, ledger: Ledger, heartbeat: Heartbeat, command: Sequence[str]) -> None:
        """``command`` starts a process like this one."""
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._command = command

    def run(self, running: RunningJob, next_want: NextWant = nothing) -> RunOutcome:  # noqa: ARG002 - the next claim is a call of its own
        """Run a job that is watched; return what became of it."""
        job = running.job
        log.info("job started alone", job_id=job.id, attempt=job.attempts)
        try:
            status = self._wait(self._start(job), running.cancel)
            draining = isinstance(running.cancel.reason, DrainingError)
            try:
                if draining and status == -signal.SIGTERM:
                    # The child was told to stop before it had begun.
                    self._ledger.requeue(job, counts=False)
                elif self._ledger.lose(job):
                    log.warning("job lost its process", job_id=job.id, status=status)
            except UnavailableError as error:
                log.warning("loss not written, the lease decides", reason=error.detail)
        finally:
            self._heartbeat.forget(running)
        return _outcome(self._ledger.get(job.id))

    def _start(self, job: Job) -> "subprocess.Popen[bytes]":
        # In a group of its own: Ctrl-C ends this worker, and `_wait` ends the child.
        return subprocess.Popen(
            [*self._command, "--alone", job.id, str(job.fence), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def _wait(self, child: "subprocess.Popen[bytes]", cancel: CancelToken) -> int:
        """Wait for the child's end; it hears the ledger's orders itself, but must obey in time."""
        told_at: float | None = None
        while True:
            try:
                return child.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if told_at is None and cancel.cancelled:
                    told_at = time.monotonic()
                    if isinstance(cancel.reason, DrainingError):
                        child.send_signal(signal.SIGTERM)
                elif told_at is not None and time.monotonic() - told_at > KILL_SECONDS:
                    child.kill()


class QuarantineChild:
    """The child: runs one job, and gives it back when told to stop or when the parent is gone."""

    def __init__(
        self, ledger: Ledger, heartbeat: Heartbeat, runner: Runner, settings: LedgerSettings
    ) -> None:
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._runner = runner
        self._settings = settings
        self._done = threading.Event()

    def run(self, job_id: str, fence: int, parent: int) -> None:
        """Run the job if the claim still holds; ``parent`` is the process that made it."""
        job = self._ledger.get(job_id)
        if job.state is not JobState.RUNNING or job.fence != fence:
            return

        def work() -> None:
            self._runner.run(self._heartbeat.watch(job))
            self._done.set()

        # In a thread: the handler of a signal must not wait.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=self._give_back).start())
        for target in (self._heartbeat.run, work):
            threading.Thread(target=target, daemon=True).start()
        while os.getppid() == parent:
            if self._done.wait(self._settings.heartbeat_seconds):
                return
        self._give_back()

    def _give_back(self) -> None:
        """Return the job, which is not to blame, and end, whatever hangs."""
        log.info("the job's own process stops")
        self._heartbeat.stop_work()
        self._done.wait(STOP_SECONDS)
        try:
            for running in self._heartbeat.running():
                self._ledger.requeue(running.job, counts=False)
        except UnavailableError as error:
            log.warning("lease not given back", reason=error.detail)
        os._exit(0)


class _KnownError(LifecycleError):
    """The error of a run in another process."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.detail, code=info.code)


def _outcome(job: Job) -> RunOutcome:
    return RunOutcome(job.state.value, _KnownError(job.error) if job.error else None)
