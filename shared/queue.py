"""Celery as the carrier of hints: which job is worth a look. The ledger decides what runs."""

from celery import Celery

from shared.jobs import Job, JobKind
from shared.ledger import NewJob
from shared.settings import Settings

DOWNLOADS = "downloads"
UPLOADS = "uploads"
REGISTRATIONS = "registrations"
INFERENCE = "inference"

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


def celery_app(settings: Settings, kind: str) -> Celery:
    """Return a process' Celery app; ``kind`` (front, cpu, gpu) keeps their unacked keys apart.

    Why each setting is as it is stands in docs/decisions/0002-celery-carries-hints.md.
    """
    app = Celery("lifecycle", set_as_current=False)
    broker = settings.redis.broker_url or settings.redis.url
    app.conf.update(
        broker_url=broker.get_secret_value(),
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
        task_send_sent_event=True,
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


class Queue:
    """Publishes hints."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def publish(self, job: Job | NewJob) -> None:
        """Tell the workers of a job's queue that it waits; a hint too many does no harm."""
        # The Celery task's id is the job's, so that Flower and the API speak of the same thing.
        # Flower shows the repr: the model's name, never the input.
        self._app.send_task(
            CELERY_TASKS[job.kind],
            args=(job.id,),
            task_id=job.id,
            queue=job.queue,
            priority=job.priority,
            argsrepr=f"({job.model!r},)",
            kwargsrepr="{}",
        )

    def hints(self, queue: str) -> int:
        """Return how many hints wait in a queue."""
        with self._app.connection_for_read() as connection:
            return int(connection.default_channel._size(queue))  # noqa: SLF001 - kombu has no other
