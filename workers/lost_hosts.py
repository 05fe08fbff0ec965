"""Jobs in a queue whose only workers do not come back."""

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from shared.errors import HostLostError
from shared.jobs import Job
from shared.ledger import Hint, Ledger, Placement, Presence
from shared.queue import INFERENCE_OLLAMA, UPLOADS, InferenceQueues, host_of
from shared.tasks import Engine

log = structlog.get_logger()


class LostHosts:
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

    def give_up(self, queue: str, waiting: Sequence[Hint]) -> None:
        """Take those of a queue's jobs that have waited too long, if the queue's host is lost."""
        if queue == INFERENCE_OLLAMA:
            self._give_to_gpu_workers(waiting)
            return
        host = host_of(queue)
        if host is None or self._is_alive(host):
            return
        for hint in waiting:
            job = self._ledger.get(hint.id)
            waited = datetime.now(UTC) - job.available_at
            if waited.total_seconds() < self._patience_seconds:
                continue
            if self._hand_on(job) or self._fail(job, host):
                log.warning("host lost", job_id=job.id, host=host)

    def _give_to_gpu_workers(self, waiting: Sequence[Hint]) -> None:
        queue = self._inference_queues.of(Engine.OLLAMA)
        for hint in waiting if queue != INFERENCE_OLLAMA else ():
            if self._ledger.reassign(self._ledger.get(hint.id), queue):
                log.warning("no Ollama worker is alive", job_id=hint.id, queue=queue)

    def _hand_on(self, job: Job) -> bool:
        """Let another host download the files and upload them; return whether one can."""
        known = self._placement.find(job.request["local_model_name"]) is not None
        return known and job.parent_id is None and self._ledger.reassign(job, UPLOADS)

    def _fail(self, job: Job, host: str) -> bool:
        error = HostLostError(
            f"{job.model} is staged on the host {host!r}, which has no worker; download it again"
        )
        return self._ledger.abandon(job, error.info())

    def _is_alive(self, host: str) -> bool:
        workers = self._presence.workers()
        return any(worker.kind == "cpu" and worker.host == host for worker in workers)
