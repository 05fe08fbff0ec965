"""Keeps queued jobs hinted and lost jobs moving; a thread of every worker."""

import threading
from collections import defaultdict

import structlog
from kombu.exceptions import OperationalError

from shared.errors import NotFoundError, UnavailableError
from shared.jobs import Job, JobState
from shared.ledger import Ledger, Reconciliation
from shared.queue import Queue
from shared.settings import LedgerSettings

log = structlog.get_logger()


class Reconciler:
    """Compares the ledger with the clock and with the queue."""

    def __init__(self, ledger: Ledger, queue: Queue, settings: LedgerSettings) -> None:
        self._ledger = ledger
        self._queue = queue
        self._settings = settings
        self._stopped = threading.Event()

    def run(self) -> None:
        """Reconcile until stopped; the body of a thread."""
        wait_seconds = self._settings.reconcile_seconds
        while not self._stopped.wait(wait_seconds):
            try:
                self.reconcile()
                wait_seconds = self._settings.reconcile_seconds
            except UnavailableError as error:
                # While Redis was away no worker could renew its leases: they get the time to.
                wait_seconds = self._settings.lease_seconds / 2
                log.warning("not reconciled", reason=error.detail)
            except (OperationalError, OSError) as error:
                log.warning("queue not reached", reason=str(error))

    def reconcile(self) -> Reconciliation:
        """Make one pass."""
        found = self._ledger.reconcile()
        if found.lost_leases or found.crashed or found.past_deadline:
            log.warning(
                "jobs recovered",
                lost=found.lost_leases,
                crashed=found.crashed,
                past_deadline=found.past_deadline,
            )
        waiting: dict[str, list[Job]] = defaultdict(list)
        for job_id in found.unhinted:
            job = self._queued(job_id)
            if job is not None:
                waiting[job.queue].append(job)
        for queue, jobs in waiting.items():
            self._publish_missing(queue, jobs)
        return found

    def _publish_missing(self, queue: str, jobs: list[Job]) -> None:
        """Publish again, but no more hints than jobs wait: a long queue is not a lost one."""
        missing = self._ledger.queued(queue) - self._queue.hints(queue)
        for job in jobs[: max(missing, 0)]:
            self._queue.publish(job)

    def _queued(self, job_id: str) -> Job | None:
        try:
            job = self._ledger.get(job_id)
        except NotFoundError:
            return None
        return job if job.state is JobState.QUEUED else None

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
