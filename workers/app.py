"""Composition root of a worker: what it is made of, and its life from start to drain."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from celery import Celery, signals
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from shared.jobs import JobKind
from shared.ledger import (
    Ledger,
    OwnedBranches,
    Placement,
    Presence,
    TransitionEpoch,
    WorkerInfo,
    connect,
)
from shared.logs import configure_logs
from shared.queue import (
    CELERY_TASKS,
    DOWNLOADS,
    INFERENCE,
    INFERENCE_OLLAMA,
    REGISTRATIONS,
    UPLOADS,
    InferenceQueues,
    Queue,
    celery_app,
    uploads_of,
)
from shared.registry import ModelRegistry
from shared.settings import Settings
from workers.alone import Alone
from workers.drain import Drain
from workers.hearing import Hearing
from workers.heartbeat import Heartbeat
from workers.lost_hosts import LostHosts
from workers.quarantine import Quarantine, own_command
from workers.reconciler import Reconciler
from workers.runner import JobFailedError, Runner, Work
from workers.watchdog import Watchdog, put_off_end

if TYPE_CHECKING:
    from workers.branch_sweeper import BranchSweeper

log = structlog.get_logger()

#: What a worker says of itself, beside its jobs in flight.
Status = Callable[[], dict[str, Any]]


class _Background(Protocol):
    """What a worker does in a thread of its own."""

    def run(self) -> None:
        """Go on until the worker ends."""


class Worker:
    """One worker process: a Celery consumer with a runner, a heartbeat and a reconciler."""

    def __init__(self, settings: Settings, kind: str, name: str | None = None) -> None:
        self.settings = settings
        self.kind = kind
        self.name = name or f"{kind}@{settings.storage.host_id}"
        self.app = celery_app(settings, kind)
        self.app.conf.worker_consumer = "workers.consumer:WaryConsumer"
        client = connect(settings.redis)
        self._queue = Queue(self.app)
        self._ledger = ledger = Ledger(client, settings.ledger, self._queue.publish)
        self._presence = Presence(client, settings.ledger)
        registry = ModelRegistry(settings.mlflow, TransitionEpoch(client, settings.ledger))
        placement = Placement(client, settings.ledger)
        self._branches = OwnedBranches(client, settings.ledger)
        self._works, self._status = self._build_works(registry, placement)
        self._sweepers = self._build_sweepers(registry)
        self._heartbeat = Heartbeat(
            ledger,
            settings.ledger.heartbeat_seconds,
            self._on_beat,
            settings.ledger.max_seconds,
        )
        quarantine = Quarantine(self.name, ledger, self._heartbeat, own_command())
        runner = Runner(
            self.name, ledger, self._heartbeat, self._works, settings.ledger, quarantine
        )
        lost_hosts = LostHosts(ledger, self._presence, placement, settings.worker.host_lost_seconds)
        self._reconciler = Reconciler(ledger, self._queue, lost_hosts, settings.ledger)
        self._drain = Drain(
            self.name,
            ledger,
            self._presence,
            self._heartbeat,
            runner,
            self._reconciler,
            settings.worker.drain_seconds,
        )
        self._hearing = Hearing(self.slots)
        self._watchdog = Watchdog(
            ledger,
            self._heartbeat,
            self._hearing,
            settings.worker,
            broker_answers=self._broker_answers,
            leave=self._drain.leave,
        )
        for job_kind in self._works:
            _define_celery_task(self.app, job_kind, runner, self._hearing)

    @property
    def queues(self) -> list[str]:
        """The queues that this kind of worker consumes."""
        if self.kind == "gpu":
            return [INFERENCE]
        if self.kind == "ollama":
            return [INFERENCE_OLLAMA]
        return [DOWNLOADS, UPLOADS, uploads_of(self.settings.storage.host_id), REGISTRATIONS]

    @property
    def slots(self) -> int:
        """How many jobs it does at once."""
        if self.kind == "gpu":
            return self.settings.worker.gpu_concurrency
        if self.kind == "ollama":
            return self.settings.ollama.slots
        return self.settings.worker.cpu_concurrency

    def run(self) -> None:
        """Consume until told to stop."""
        signals.setup_logging.connect(lambda **_: configure_logs(), weak=False)
        signals.worker_ready.connect(lambda sender, **_: self._start(sender), weak=False)
        signals.worker_shutting_down.connect(lambda **_: self._drain.begin(), weak=False)
        self.app.worker_main(
            [
                "worker",
                "--pool=threads",
                f"--concurrency={self.slots}",
                f"--queues={','.join(self.queues)}",
                f"--hostname={self.name}",
                "--task-events",
                "--without-gossip",
                "--without-mingle",
            ]
        )

    def run_alone(self, job_id: str, fence: int, parent: int) -> None:
        """Do one job that the worker ``parent``, another process, has claimed."""
        settings = self.settings.ledger

        def on_beat(_: int) -> None:
            # The parent announces for both; that this process may live on is its own to say.
            put_off_end(2 * settings.lease_seconds)

        heartbeat = Heartbeat(
            self._ledger, settings.heartbeat_seconds, on_beat, settings.max_seconds
        )
        runner = Runner(self.name, self._ledger, heartbeat, self._works, settings)
        Alone(self._ledger, heartbeat, runner, settings).run(job_id, fence, parent)

    def _build_works(
        self, registry: ModelRegistry, placement: Placement
    ) -> tuple[dict[JobKind, Work], Status]:
        # Beside queues and slots, only here do the kinds differ; only a GPU worker imports torch.
        if self.kind in {"gpu", "ollama"}:
            from workers.inference.works import inference_works  # noqa: PLC0415

            return inference_works(self.settings, registry, ollama_only=self.kind == "ollama")
        from workers.lifecycle.works import lifecycle_works  # noqa: PLC0415

        queues = InferenceQueues(self._presence)
        works = lifecycle_works(
            self.settings, self._ledger, registry, placement, self._branches, queues
        )
        return works, dict

    def _build_sweepers(self, registry: ModelRegistry) -> "tuple[BranchSweeper, ...]":
        if self.kind != "cpu":
            return ()
        from workers.lifecycle.works import branch_sweeper  # noqa: PLC0415

        return (branch_sweeper(self.settings, self._ledger, registry, self._branches),)

    def _start(self, consumer: object) -> None:
        self._hearing.attach(consumer)
        parts: list[_Background] = [self._heartbeat, self._reconciler, self._watchdog]
        for part in (*parts, *self._sweepers):
            threading.Thread(target=part.run, name=type(part).__name__, daemon=True).start()
        log.info("worker ready", name=self.name, queues=self.queues)

    def _on_beat(self, in_flight: int) -> None:
        """Say that this worker is alive, and that its process may live on."""
        put_off_end(2 * self.settings.ledger.lease_seconds)
        status = {
            "in_flight": in_flight,
            "consuming": self._hearing.consuming,
            "draining": self._drain.begun,
            **self._status(),
        }
        self._presence.announce(
            WorkerInfo(self.name, self.kind, self.settings.storage.host_id, status)
        )

    def _broker_answers(self) -> bool:
        """Ask for anything over a connection that is new."""
        try:
            self._queue.hinted(self.queues[0])
        except (KombuError, RedisError, OSError):
            return False
        return True


def _define_celery_task(app: Celery, kind: JobKind, runner: Runner, hearing: Hearing) -> None:
    @app.task(name=CELERY_TASKS[kind], throws=(JobFailedError,))  # type: ignore[untyped-decorator]
    def run(job_id: str) -> None:
        with hearing.occupied():
            runner.run(job_id)
