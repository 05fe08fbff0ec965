"""Composition root of a worker: its parts, and its life from start to shutdown."""

import gc
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from celery import signals

from shared.errors import UnavailableError
from shared.ledger import (
    Ledger,
    OldLedger,
    OwnedBranches,
    Placement,
    Presence,
    TransitionEpoch,
    Want,
    WorkerInfo,
    await_ledger,
    connect,
)
from shared.ledger.schema import SchemaError, celery_queue
from shared.logs import configure_logs
from shared.queue import (
    DOWNLOADS,
    INFERENCE,
    INFERENCE_OLLAMA,
    REGISTRATIONS,
    UPLOADS,
    InferenceQueues,
    celery_app,
    uploads_of,
)
from shared.registry import ModelRegistry
from shared.settings import Settings
from workers.context import Background, WorkerParts
from workers.process.celery_events import CeleryEvents
from workers.process.celery_worker import CeleryWorker
from workers.process.heartbeat import Heartbeat
from workers.process.quarantine import QuarantineChild, QuarantineRunner, own_command
from workers.process.reconciler import LostHostRecovery, Reconciler
from workers.process.report import WorkerReport
from workers.process.runner import Runner
from workers.process.shutdown import Drain
from workers.process.slots import Slots
from workers.process.watchdog import ConsumerLiveness, Watchdog, postpone_exit

#: A thread that computes keeps the others waiting for this long, at each reply of Redis; Python's
#: default is 5 ms.
_SWITCH_SECONDS = 0.001
#: The last events are sent within this time.
_LAST_EVENTS_SECONDS = 1.0

log = structlog.get_logger()


class Worker:
    """One worker process: slots that run jobs, what keeps it healthy, and Celery around it."""

    def __init__(self, settings: Settings, kind: str, name: str | None = None) -> None:
        self.settings = settings
        self.kind = kind
        self.name = name or f"{kind}@{settings.storage.host_id}"
        self._client = connect(settings.redis)
        self._ledger = ledger = Ledger(self._client, settings.ledger)
        self._presence = presence = Presence(self._client, settings.ledger)
        registry = ModelRegistry(settings.mlflow, TransitionEpoch(self._client, settings.ledger))
        placement = Placement(self._client, settings.ledger)
        self._parts = parts = self._build_parts(registry, placement)

        info = WorkerInfo(self.name, kind, settings.storage.host_id, {})
        every_seconds = settings.ledger.heartbeat_seconds
        self._report = WorkerReport(presence, info, parts.status, self._own_status, every_seconds)
        models = parts.models
        self._heartbeat = heartbeat = Heartbeat(
            self.name,
            ledger,
            every_seconds,
            self._on_beat,
            settings.ledger.max_seconds,
            models.load_seconds if models is not None else None,
        )
        app = celery_app(settings, kind)
        names = [celery_queue(settings.ledger, queue) for queue in self.queues]
        self._celery = CeleryWorker(app, self.name, names, ledger, heartbeat)
        self._events = CeleryEvents(app, self.name)
        runner = Runner(ledger, heartbeat, parts.works, settings.ledger, self._report.flush)
        want = Want(slot=f"{self.name}/", owner=self.name, queues=tuple(self.queues))
        slots = Slots(want, self.slots, ledger, heartbeat, runner, self._events, models)
        quarantine = QuarantineRunner(ledger, heartbeat, own_command())
        want_alone = replace(want, slot=f"{self.name}/alone-", alone=True)
        alone = Slots(want_alone, 1, ledger, heartbeat, quarantine, self._events)
        if models is not None:
            models.on_change(self._models_changed)
        self._slots = (slots, alone)
        lost_hosts = LostHostRecovery(
            ledger, presence, placement, settings.worker.host_lost_seconds
        )
        old_ledger = OldLedger(self._client, settings.ledger)
        self._reconciler = Reconciler(
            ledger, old_ledger, lost_hosts, settings.ledger, self._events.ended
        )
        self._drain = Drain(
            self.name,
            ledger,
            presence,
            heartbeat,
            self._slots,
            self._stop_others,
            settings.worker.drain_seconds,
        )
        pulses = {"a slot": slots.seen_at, "Celery's event loop": self._celery.seen_at}
        self._liveness = ConsumerLiveness(pulses)
        self._watchdog = Watchdog(
            ledger,
            heartbeat,
            self._liveness,
            settings.worker,
            redis_answers=self._redis_answers,
            leave=self._drain.leave,
        )

    @property
    def queues(self) -> Sequence[str]:
        """The queues from which this kind of worker takes jobs."""
        if self.kind == "gpu":
            return (INFERENCE,)
        if self.kind == "ollama":
            return (INFERENCE_OLLAMA,)
        return (DOWNLOADS, UPLOADS, uploads_of(self.settings.storage.host_id), REGISTRATIONS)

    @property
    def slots(self) -> int:
        """How many jobs it runs at once."""
        if self.kind == "gpu":
            return self.settings.worker.gpu_concurrency
        if self.kind == "ollama":
            return self.settings.ollama.slots
        return self.settings.worker.cpu_concurrency

    def run(self) -> None:
        """Run jobs until told to stop."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._await_schema()
        level = self.settings.log.level
        signals.setup_logging.connect(lambda **_: configure_logs(level), weak=False)
        signals.worker_ready.connect(lambda **_: self._start(), weak=False)
        signals.worker_shutting_down.connect(lambda **_: self._drain.begin(), weak=False)
        status = self._celery.run(list(self._parts.works), self.slots)
        # Celery ends at once; the jobs have their grace time.
        self._drain.begin()
        self._drain.wait()
        sys.exit(status)

    def run_alone(self, job_id: str, fence: int, parent: int) -> None:
        """Run one job that the worker ``parent``, another process, has claimed."""
        settings = self.settings.ledger

        def on_beat() -> None:
            # The parent announces for both; each process postpones its own exit.
            postpone_exit(2 * settings.lease_seconds)

        heartbeat = Heartbeat(
            self.name, self._ledger, settings.heartbeat_seconds, on_beat, settings.max_seconds
        )
        runner = Runner(self._ledger, heartbeat, self._parts.works, settings)
        QuarantineChild(self._ledger, heartbeat, runner, settings).run(job_id, fence, parent)

    def _build_parts(self, registry: ModelRegistry, placement: Placement) -> WorkerParts:
        # Beside queues and slots, only here do the kinds differ; only a GPU worker imports torch.
        if self.kind in {"gpu", "ollama"}:
            from workers.inference.works import inference_works  # noqa: PLC0415

            return inference_works(self.settings, registry, ollama_only=self.kind == "ollama")
        from workers.lifecycle.works import lifecycle_works  # noqa: PLC0415

        branches = OwnedBranches(self._client, self.settings.ledger)
        queues = InferenceQueues(self._presence)
        return lifecycle_works(self.settings, self._ledger, registry, placement, branches, queues)

    def _await_schema(self) -> None:
        """Wait for Redis; end the process if its ledger is of a later version."""
        try:
            await_ledger(self._client, self.settings.ledger)
        except SchemaError as error:
            log.error("worker does not start", reason=error.detail)  # noqa: TRY400 - no defect
            sys.exit(1)

    def _start(self) -> None:
        # What is there now stays: the garbage collector need not look at it again and again.
        gc.freeze()
        # Before the first beat a job may hold Python's lock already.
        postpone_exit(2 * self.settings.ledger.lease_seconds)
        parts: tuple[Background, ...] = (
            self._heartbeat,
            self._report,
            self._reconciler,
            self._watchdog,
            *self._parts.background,
        )
        for part in parts:
            threading.Thread(target=part.run, name=type(part).__name__, daemon=True).start()
        self._events.start()
        log.info("worker ready", name=self.name, queues=list(self.queues))
        for slots in self._slots:
            slots.start()

    def _models_changed(self) -> None:
        self._report.changed()
        for slots in self._slots:
            slots.look_again()

    def _stop_others(self) -> None:
        self._reconciler.stop()
        self._report.stop()
        self._events.stop(_LAST_EVENTS_SECONDS)

    def _on_beat(self) -> None:
        """Announce that this worker is alive, and postpone the end of its process."""
        postpone_exit(2 * self.settings.ledger.lease_seconds)
        self._report.announce()

    def _own_status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "in_flight": len(self._heartbeat.running()),
            "consuming": self._liveness.consuming,
            "draining": self._drain.begun,
        }

    def _redis_answers(self) -> bool:
        try:
            self._ledger.ping()
        except UnavailableError:
            return False
        return True
