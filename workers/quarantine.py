"""Runs a job that lost workers in a process of its own, so that nothing else falls with it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import structlog

from shared.cancellation import CancelToken
from shared.errors import DrainingError, UnavailableError
from shared.jobs import Job
from shared.ledger import Ledger
from workers.heartbeat import Heartbeat

#: How often the child is looked at for orders that have come; its end is noticed at once.
LOOK_SECONDS = 0.5
#: A child that was told to stop is killed after this time.
STOP_SECONDS = 10.0

log = structlog.get_logger()


def own_command() -> list[str]:
    """Return the command that started this process, by which it starts its like."""
    return [sys.executable, *sys.orig_argv[1:]]


class Quarantine:
    """One place, beside the worker's slots, for a job that must run alone.

    The worker claims the job and renews its lease, so it hears of a crash at once and can tell the
    ledger whose it was, however the child ends: killed, by ``_exit``, or hung and killed from here.
    """

    def __init__(
        self, name: str, ledger: Ledger, heartbeat: Heartbeat, command: Sequence[str]
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._command = command
        self._place = threading.Lock()

    def run(self, job_id: str) -> Job | None:
        """Do a job in a child, and return what became of it; None if it is not to be had now."""
        if not self._place.acquire(blocking=False):
            return None  # the reconciler hints it again
        try:
            job = self._ledger.claim(job_id, self._name, alone=True)
            return self._run(job) if job is not None else None
        finally:
            self._place.release()

    def _run(self, job: Job) -> Job:
        token = CancelToken()
        with self._heartbeat.watching(job, token):
            log.info("job started alone", job_id=job.id, attempt=job.attempts)
            status = self._wait(self._start(job), token)
            try:
                if self._ledger.lose(job):
                    log.warning("job lost its process", job_id=job.id, status=status)
            except UnavailableError as error:
                log.warning("loss not written, the lease decides", reason=error.detail)
        return self._ledger.get(job.id)

    def _start(self, job: Job) -> "subprocess.Popen[bytes]":
        # In a group of its own: what ends this worker by Ctrl-C ends the child by `_wait`.
        return subprocess.Popen(
            [*self._command, "--alone", job.id, str(job.fence), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def _wait(self, child: "subprocess.Popen[bytes]", token: CancelToken) -> int:
        """Wait for the child's end; it hears the ledger's orders itself, but must obey in time."""
        told_at: float | None = None
        while True:
            try:
                return child.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if told_at is None and token.cancelled:
                    told_at = time.monotonic()
                    if isinstance(token.reason, DrainingError):
                        child.send_signal(signal.SIGTERM)
                elif told_at is not None and time.monotonic() - told_at > STOP_SECONDS:
                    child.kill()
