"""The Celery worker around the slots: it takes control commands and shows what runs.

The slots claim jobs from the ledger themselves (decision record 0020). Celery's consumer names the
worker's queues, but takes nothing from them; its control commands, its heartbeat and its recovery
of lost connections are used as they are.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import kombu.messaging
from celery import Celery, bootsteps
from celery.app.amqp import AMQP
from celery.worker import state as celery_state
from celery.worker.consumer import Consumer
from celery.worker.control import control_command, inspect_command

from shared.errors import ConflictError, LifecycleError, NotFoundError
from shared.jobs import Job, JobKind
from shared.ledger import Ledger
from shared.queue import CELERY_TASKS
from workers.process.heartbeat import Heartbeat, RunningJob

#: How often Celery's view of what runs is renewed; also the event loop's sign of life.
SYNC_SECONDS = 1.0


class PassiveConsumer(kombu.messaging.Consumer):
    """Knows the worker's queues, and takes nothing from them."""

    auto_declare = False

    def consume(self, no_ack: bool | None = None) -> None:
        """Take nothing: the slots wait for work themselves."""


class PassiveQueues(AMQP):  # type: ignore[misc] # Celery is not typed
    """Has Celery consume passively."""

    Consumer = PassiveConsumer


class JobConsumer(Consumer):  # type: ignore[misc] # Celery is not typed
    """Celery's consumer, which says whether its event loop still runs."""

    connecting = False
    looped_at = 0.0

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long that takes."""
        self.connecting = True
        try:
            return super().ensure_connected(conn)
        finally:
            self.connecting = False


class RunningRequest:
    """A running job, as Celery shows its requests."""

    def __init__(self, running: RunningJob, hostname: str) -> None:
        job = running.job
        self.id = job.id
        self.name = CELERY_TASKS[job.kind]
        self._job = job
        self._hostname = hostname
        self._time_start = time.time() - running.seconds
        self._cancel = running.cancel

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return what ``celery inspect`` and Flower show."""
        return {
            "id": self.id,
            "name": self.name,
            "type": self.name,
            "args": argsrepr(self._job),
            "kwargs": "{}",
            "hostname": self._hostname,
            "time_start": self._time_start,
            "acknowledged": True,
            "delivery_info": {
                "exchange": "",
                "routing_key": self._job.queue,
                "priority": self._job.priority,
                "redelivered": self._job.attempts > 1,
            },
            "worker_pid": os.getpid(),
        }


def argsrepr(job: Job) -> str:
    """Return what Celery shows as a job's arguments: its model, never its input."""
    return f"({job.model!r},)"


class CeleryWorker:
    """Runs Celery's worker, and connects it with the jobs that run."""

    def __init__(
        self, app: Celery, name: str, queues: Sequence[str], ledger: Ledger, heartbeat: Heartbeat
    ) -> None:
        """``queues`` are Celery's names of the worker's queues."""
        app.amqp_cls = f"{__name__}:{PassiveQueues.__name__}"
        app.conf.worker_consumer = f"{__name__}:{JobConsumer.__name__}"
        self._app = app
        self._name = name
        self._queues = queues
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._consumer: JobConsumer | None = None
        self._shown: dict[RunningJob, RunningRequest] = {}
        app.steps["consumer"].add(self._sync_step())
        self._register_commands()

    def run(self, kinds: Sequence[JobKind], slots: int) -> int:
        """Run until told to stop; return the status to exit with."""
        for kind in kinds:
            # Never called: so that Celery and Flower know the names.
            self._app.task(name=CELERY_TASKS[kind])(_never)
        arguments = [
            "worker",
            "--pool=threads",
            f"--concurrency={slots}",
            f"--queues={','.join(self._queues)}",
            f"--hostname={self._name}",
            "--task-events",
            "--without-gossip",
            "--without-mingle",
        ]
        return int(self._app.worker_main(arguments) or 0)

    def seen_at(self) -> float:
        """Return when Celery's event loop last ran; the present while it connects."""
        consumer = self._consumer
        if consumer is None or consumer.connecting:
            return time.monotonic()
        return consumer.looped_at

    def _sync(self, consumer: JobConsumer) -> None:
        """Show Celery what runs now. Only its event loop may change its sets: it iterates them."""
        self._consumer = consumer
        consumer.looped_at = time.monotonic()
        running = {
            each: self._shown.get(each) or RunningRequest(each, self._name)
            for each in self._heartbeat.running()
        }
        for each, request in running.items():
            if each not in self._shown:
                celery_state.requests[request.id] = request
                celery_state.active_requests.add(request)
        for each, request in self._shown.items():
            if each not in running:
                celery_state.active_requests.discard(request)
                if celery_state.requests.get(request.id) is request:
                    del celery_state.requests[request.id]
        self._shown = running

    def _sync_step(self) -> type[bootsteps.StartStopStep]:
        sync = self._sync

        class Sync(bootsteps.StartStopStep):  # type: ignore[misc] # Celery is not typed
            """Renews Celery's view of what runs, from its own event loop."""

            requires = ("celery.worker.consumer.control:Control",)
            timer: Any = None

            def start(self, consumer: JobConsumer) -> None:
                sync(consumer)
                self.timer = consumer.timer.call_repeatedly(SYNC_SECONDS, sync, (consumer,))

            def stop(self, consumer: JobConsumer) -> None:
                if self.timer is not None:
                    consumer.timer.cancel(self.timer)

        return Sync

    def _register_commands(self) -> None:
        @inspect_command(name="active", alias="dump_active")  # type: ignore[untyped-decorator]
        def active(state: Any, safe: bool = False, **_: object) -> list[dict[str, Any]]:
            """List the jobs that run."""
            self._sync(state.consumer)
            return [request.info(safe=safe) for request in self._shown.values()]

        @control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")  # type: ignore[untyped-decorator]
        def revoke(state: object, task_id: Any, **_: object) -> dict[str, str]:  # noqa: ARG001
            """Cancel jobs by their ids."""
            ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
            return {"ok": ", ".join(f"{job_id}: {self._cancel(job_id)}" for job_id in ids)}

        @control_command(  # type: ignore[untyped-decorator]
            name="terminate",
            variadic="task_id",
            args=[("signal", str)],
            signature="<signal> [id1 [id2 [... [idN]]]]",
        )
        def terminate(state: object, signal: object, task_id: Any, **_: object) -> Any:  # noqa: ARG001
            """Cancel jobs by their ids; the signal is ignored, as jobs run in threads."""
            return revoke(state, task_id)

    def _cancel(self, job_id: str) -> str:
        try:
            self._ledger.cancel(job_id)
        except (ConflictError, NotFoundError):
            return "has ended or is unknown"
        except LifecycleError as error:
            return error.detail
        self._heartbeat.cancel(job_id)
        return "cancelled"


def _never() -> None:
    """Stand for a job, which Celery never runs."""
