"""Composition root of a worker: what it is made of, and its life from start to drain."""

import os
import threading
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, signals

from shared.errors import UnavailableError
from shared.jobs import JobKind
from shared.ledger import Ledger, Placement, Presence, TransitionEpoch, WorkerInfo, connect
from shared.logs import configure_logs
from shared.queue import (
    CELERY_TASKS,
    DOWNLOADS,
    INFERENCE,
    REGISTRATIONS,
    UPLOADS,
    Queue,
    celery_app,
    uploads_of,
)
from shared.registry import ModelRegistry
from shared.settings import Settings
from workers.heartbeat import Heartbeat
from workers.reconciler import Reconciler
from workers.runner import JobFailedError, Runner, Work

#: Told to stop, a job reaches its next checkpoint within this time.
STOP_SECONDS = 3.0

log = structlog.get_logger()

#: What a worker says of itself, beside its jobs in flight.
Status = Callable[[], dict[str, Any]]


class Worker:
    """One worker process: a Celery consumer with a runner, a heartbeat and a reconciler."""

    def __init__(self, settings: Settings, kind: str, name: str | None = None) -> None:
        self.settings = settings
        self.kind = kind
        self.name = name or f"{kind}@{settings.storage.host_id}"
        self.app = celery_app(settings, kind)
        client = connect(settings.redis)
        self._ledger = Ledger(client, settings.ledger)
        self._presence = Presence(client, settings.ledger)
        registry = ModelRegistry(settings.mlflow, TransitionEpoch(client, settings.ledger))
        works, self._status = self._build_works(registry, Placement(client, settings.ledger))
        self._heartbeat = Heartbeat(self._ledger, settings.ledger.heartbeat_seconds, self._announce)
        self._runner = Runner(self.name, self._ledger, self._heartbeat, works, settings.ledger)
        self._reconciler = Reconciler(self._ledger, Queue(self.app), settings.ledger)
        for job_kind in works:
            _define_celery_task(self.app, job_kind, self._runner)

    @property
    def queues(self) -> list[str]:
        """The queues that this kind of worker consumes."""
        if self.kind == "gpu":
            return [INFERENCE]
        return [DOWNLOADS, UPLOADS, uploads_of(self.settings.storage.host_id), REGISTRATIONS]

    def run(self) -> None:
        """Consume until told to stop."""
        concurrency = self.settings.worker
        slots = concurrency.gpu_concurrency if self.kind == "gpu" else concurrency.cpu_concurrency
        signals.setup_logging.connect(lambda **_: configure_logs(), weak=False)
        signals.worker_ready.connect(lambda **_: self._start(), weak=False)
        signals.worker_shutting_down.connect(lambda **_: self._begin_drain(), weak=False)
        self.app.worker_main(
            [
                "worker",
                "--pool=threads",
                f"--concurrency={slots}",
                f"--queues={','.join(self.queues)}",
                f"--hostname={self.name}",
                "--task-events",
                "--without-gossip",
                "--without-mingle",
            ]
        )

    def _build_works(
        self, registry: ModelRegistry, placement: Placement
    ) -> tuple[dict[JobKind, Work], Status]:
        # Only here do the two kinds differ, and only a GPU worker may import torch.
        if self.kind == "gpu":
            from workers.inference.works import inference_works  # noqa: PLC0415

            return inference_works(self.settings, registry)
        from workers.lifecycle.works import lifecycle_works  # noqa: PLC0415

        return lifecycle_works(self.settings, registry, placement), dict

    def _start(self) -> None:
        for part in (self._heartbeat, self._reconciler):
            threading.Thread(target=part.run, name=type(part).__name__, daemon=True).start()
        log.info("worker ready", name=self.name, queues=self.queues)

    def _announce(self, in_flight: int) -> None:
        status = {"in_flight": in_flight, **self._status()}
        self._presence.announce(
            WorkerInfo(self.name, self.kind, self.settings.storage.host_id, status)
        )

    def _begin_drain(self) -> None:
        # In a thread: the signal's handler must not wait.
        threading.Thread(target=self._drain, name="Drain", daemon=True).start()

    def _drain(self) -> None:
        """Give running jobs their grace time; what still hangs then is given back by force."""
        log.info("worker draining", name=self.name)
        self._runner.stop_claiming()
        drained = self._heartbeat.drain(self.settings.worker.drain_seconds, STOP_SECONDS)
        self._reconciler.stop()
        self._heartbeat.stop()
        try:
            for job in self._heartbeat.unfinished():
                self._ledger.requeue(job, counts=False)
            self._presence.leave(self.name)
        except UnavailableError as error:
            log.warning("leases not given back", reason=error.detail)
        if not drained:
            # A hung thread would keep Celery's own shutdown waiting for ever.
            os._exit(0)


def _define_celery_task(app: Celery, kind: JobKind, runner: Runner) -> None:
    @app.task(name=CELERY_TASKS[kind], throws=(JobFailedError,))  # type: ignore[untyped-decorator]
    def run(job_id: str) -> None:
        runner.run(job_id)
