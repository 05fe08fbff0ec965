"""Uploads whose files are on a host that does not come back."""

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from shared.errors import HostLostError
from shared.ledger import Hint, Ledger, Presence
from shared.queue import host_of

log = structlog.get_logger()


class LostHosts:
    """Gives up jobs that only one host can do, when that host has been silent for long."""

    def __init__(self, ledger: Ledger, presence: Presence, patience_seconds: float) -> None:
        self._ledger = ledger
        self._presence = presence
        self._patience_seconds = patience_seconds

    def give_up(self, queue: str, waiting: Sequence[Hint]) -> None:
        """Fail those of a queue's jobs that have waited too long, if the queue's host is lost."""
        host = host_of(queue)
        if host is None or self._is_alive(host):
            return
        for hint in waiting:
            job = self._ledger.get(hint.id)
            waited = datetime.now(UTC) - job.available_at
            if waited.total_seconds() < self._patience_seconds:
                continue
            error = HostLostError(
                f"{job.model} is staged on the host {host!r}, which has no worker; "
                "download it again"
            )
            if self._ledger.abandon(job, error.info()):
                log.warning("host lost", job_id=job.id, host=host)

    def _is_alive(self, host: str) -> bool:
        workers = self._presence.workers()
        return any(worker.kind == "cpu" and worker.host == host for worker in workers)
