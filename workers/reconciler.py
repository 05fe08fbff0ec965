"""Keeps queued jobs hinted and lost jobs moving; a thread of every worker."""

import threading
from collections import defaultdict

import structlog
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from shared.errors import UnavailableError
from shared.ledger import Hint, Ledger, Reconciliation
from shared.queue import Queue
from shared.settings import LedgerSettings
from workers.lost_hosts import LostHosts

log = structlog.get_logger()


class Reconciler:
    """Compares the ledger with the clock and with the queue."""

    def __init__(
        self, ledger: Ledger, queue: Queue, lost_hosts: LostHosts, settings: LedgerSettings
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._lost_hosts = lost_hosts
        self._settings = settings
        self._stopped = threading.Event()

    def run(self) -> None:
        """Reconcile until stopped, whatever happens; the body of a thread."""
        wait_seconds = self._settings.reconcile_seconds
        while not self._stopped.wait(wait_seconds):
            try:
                self.reconcile()
                wait_seconds = self._settings.reconcile_seconds
            except UnavailableError as error:
                # While Redis was away no worker could renew its leases: they get the time to.
                wait_seconds = self._settings.lease_seconds / 2
                log.warning("not reconciled", reason=error.detail)
            except (KombuError, RedisError, OSError) as error:
                log.warning("queue not reached", reason=str(error))
            except Exception:
                log.exception("defect in the reconciler")

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
        if found.crowded_out:
            log.warning("Redis is nearly full: old jobs forgotten", count=found.crowded_out)
        hints: dict[str, list[Hint]] = defaultdict(list)
        for hint in found.hints:
            hints[hint.queue].append(hint)
        for queue, those in hints.items():
            # What the broker still holds is not lost: it waits for a worker.
            held = self._queue.hinted(queue)
            self._queue.publish([hint for hint in those if hint.id not in held])
            self._lost_hosts.give_up(queue, those)
        return found

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
