"""Moves lost and late jobs on, and those that wait for hosts that are gone; in every worker."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from shared.errors import HostLostError, UnavailableError
from shared.jobs import Job
from shared.ledger import Ledger, OldLedger, Placement, Presence, Reconciliation
from shared.queue import INFERENCE_OLLAMA, UPLOADS, InferenceQueues, host_of
from shared.settings import LedgerSettings
from shared.tasks import Engine

log = structlog.get_logger()


class LostHostRecovery:
    """Takes jobs from the only host that can do them, when that host has been silent for long.

    An upload goes to all hosts, of which one downloads its files again; it fails if nobody knows
    from where, or if an import waits for it, which then downloads them again itself. An inference
    by Ollama goes to GPU workers as soon as no Ollama worker is alive.
    """

    def __init__(
        self, ledger: Ledger, presence: Presence, placement: Placement, patience_seconds: float
    ) -> None:
        self._ledger = ledger
        self._presence = presence
        self._placement = placement
        self._inference_queues = InferenceQueues(presence)
        self._patience_seconds = patience_seconds
        #: Hosts for which jobs wait, and since when this process has seen no worker there.
        self._silent_since: dict[str, float] = {}

    def recover(self) -> None:
        """Take the jobs that have waited too long from every queue whose workers are gone."""
        queues = [depth.queue for depth in self._ledger.counts().queues if depth.queued]
        self._watch({host for queue in queues if (host := host_of(queue))})
        for queue in queues:
            self._recover(queue)

    def _watch(self, hosts: set[str]) -> None:
        """Note which hosts are silent.

        The time is measured here. After an outage of Redis, or a step of its clock, no worker is
        known for a moment, whatever time the jobs have waited by then.
        """
        if hosts:
            hosts -= {each.host for each in self._presence.workers() if each.kind == "cpu"}
        since, now = self._silent_since, time.monotonic()
        self._silent_since = {host: since.get(host, now) for host in hosts}

    def _recover(self, queue: str) -> None:
        if queue == INFERENCE_OLLAMA:
            self._give_to_gpu_workers()
            return
        host = host_of(queue)
        if host is None or not self._is_lost(host):
            return
        for job in self._ledger.waiting(queue):
            waited = datetime.now(UTC) - job.available_at
            if waited.total_seconds() < self._patience_seconds:
                continue
            if self._hand_on(job) or self._fail(job, host):
                log.warning("host lost", job_id=job.id, host=host)

    def _give_to_gpu_workers(self) -> None:
        queue = self._inference_queues.of(Engine.OLLAMA)
        if queue == INFERENCE_OLLAMA:
            return
        for job in self._ledger.waiting(INFERENCE_OLLAMA):
            if self._ledger.reassign(job, queue):
                log.warning("no Ollama worker is alive", job_id=job.id, queue=queue)

    def _hand_on(self, job: Job) -> bool:
        """Let another host download the files and upload them; return whether one can."""
        # A list leaves out large requests: a commit's message may be long.
        request = self._ledger.get(job.id).request
        known = self._placement.find(request["local_model_name"]) is not None
        return known and job.parent_id is None and self._ledger.reassign(job, UPLOADS)

    def _fail(self, job: Job, host: str) -> bool:
        error = HostLostError(
            f"{job.model} is staged on the host {host!r}, which has no worker; download it again"
        )
        return self._ledger.abandon(job, error.info())

    def _is_lost(self, host: str) -> bool:
        since = self._silent_since.get(host)
        return since is not None and time.monotonic() - since >= self._patience_seconds


class Reconciler:
    """Compares the ledger with the clock; a thread of every worker."""

    def __init__(
        self,
        ledger: Ledger,
        old_ledger: OldLedger,
        lost_hosts: LostHostRecovery,
        settings: LedgerSettings,
        note_end: Callable[[Job], None],
    ) -> None:
        """``note_end`` is told of each job that did not end by a word of the worker that ran it."""
        self._ledger = ledger
        self._note_end = note_end
        self._old_ledger = old_ledger
        self._lost_hosts = lost_hosts
        self._settings = settings
        self._stopped = threading.Event()

    def run(self) -> None:
        """Reconcile until stopped, whatever happens; the body of a thread."""
        while not self._stopped.wait(self._settings.reconcile_seconds):
            try:
                self.reconcile()
            except UnavailableError as error:
                log.warning("not reconciled", reason=error.detail)
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
        for job in self._ledger.take_untold():
            self._note_end(job)
        # Jobs that a worker of an older version still ran when this process started.
        self._old_ledger.adopt()
        self._lost_hosts.recover()
        return found

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
