"""Celery: the queues' names, and the app through which workers are seen and told what to do.

The ledger decides what runs. It keeps one entry in Celery's list for each job that may start.
"""

import math
import time

from celery import Celery

from shared.jobs import JobKind
from shared.ledger import Presence
from shared.settings import Settings
from shared.tasks import Engine

DOWNLOADS = "downloads"
UPLOADS = "uploads"
REGISTRATIONS = "registrations"
INFERENCE = "inference"
#: Inference that an Ollama server does; its workers have slots of their own.
INFERENCE_OLLAMA = "inference-ollama"

#: How long the kinds of the workers that are alive are remembered.
_KINDS_SECONDS = 1.0

#: The Celery task of each kind, named so that Flower reads well. A batch runs as its children.
CELERY_TASKS = {
    JobKind.DOWNLOAD: "models.download",
    JobKind.UPLOAD: "models.upload_to_lakefs",
    JobKind.REGISTER: "models.register",
    JobKind.IMPORT: "models.import",
    JobKind.INFER: "inference.infer",
}


def uploads_of(host_id: str) -> str:
    """Return the queue of uploads whose files are staged on a host."""
    return f"{UPLOADS}.{host_id}"


def host_of(queue: str) -> str | None:
    """Return the only host whose workers consume a queue; None for queues of all hosts."""
    host = queue.removeprefix(f"{UPLOADS}.")
    return None if host == queue else host


class InferenceQueues:
    """Chooses the queue of an inference by its engine and the workers that are alive."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._kinds: set[str] = set()
        self._read_at = -math.inf

    def remembered(self, engine: str) -> str | None:
        """Return the queue if it is known without asking Redis."""
        fresh = time.monotonic() - self._read_at <= _KINDS_SECONDS
        return self.of(engine) if engine != Engine.OLLAMA or fresh else None

    def of(self, engine: str) -> str:
        """Return the queue; GPU workers serve Ollama where they are alive and its workers not."""
        if engine != Engine.OLLAMA:
            return INFERENCE
        kinds = self._alive()
        return INFERENCE if "gpu" in kinds and "ollama" not in kinds else INFERENCE_OLLAMA

    def _alive(self) -> set[str]:
        now = time.monotonic()
        if now - self._read_at > _KINDS_SECONDS:
            self._kinds = {worker.kind for worker in self._presence.workers()}
            self._read_at = now
        return self._kinds


def celery_app(settings: Settings, kind: str) -> Celery:
    """Return a process' Celery app; each ``kind`` (front, cpu, gpu, ollama) has unacked keys.

    docs/decisions/0002 and 0020 give the reasons for the settings.
    """
    app = Celery("lifecycle", set_as_current=False)
    app.conf.update(
        broker_url=settings.redis.url.get_secret_value(),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 60,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 30,
            "unacked_key": f"unacked.{kind}",
            "unacked_index_key": f"unacked_index.{kind}",
            "unacked_mutex_key": f"unacked_mutex.{kind}",
            "socket_timeout": settings.redis.timeout_seconds,
            "socket_connect_timeout": settings.redis.timeout_seconds,
            "socket_keepalive": True,
            # A connection that went dead without a word is dropped after one to two of these.
            "health_check_interval": 4,
            "queue_order_strategy": "priority",
        },
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_publish_retry=False,
        task_create_missing_queues=True,
        task_send_sent_event=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        control_queue_ttl=60,
        event_queue_expires=60,
    )
    return app
