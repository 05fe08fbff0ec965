"""Celery's events of jobs, from which Flower shows them."""

import threading
import time
from collections import deque
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from shared.jobs import Job
from shared.queue import CELERY_TASKS
from workers.process.celery_worker import argsrepr
from workers.process.runner import RunOutcome

#: Events are sent together, this often.
FLUSH_SECONDS = 0.25
#: After a failure they are kept for this time before the next try.
OUTAGE_SECONDS = 2.0
#: The most events that are kept; older ones are dropped.
KEPT_EVENTS = 20_000
#: The most events in one message.
BATCH = 1000

log = structlog.get_logger()


class CeleryEvents:
    """Sends events from a thread and a connection of its own, so that they delay no job.

    Events are what Flower shows, and no more: those that Redis misses for long are dropped.
    """

    def __init__(self, app: Celery, name: str) -> None:
        self._app = app
        self._name = name
        self._events: deque[tuple[str, float, dict[str, Any]]] = deque(maxlen=KEPT_EVENTS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="CeleryEvents", daemon=True)

    def start(self) -> None:
        """Start to send."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Send what is left, within some seconds."""
        self._stopped.set()
        self._thread.join(seconds)

    def started(self, job: Job) -> None:
        """Note that a run starts."""
        details = {
            "name": CELERY_TASKS[job.kind],
            "args": argsrepr(job),
            "kwargs": "{}",
            "retries": max(job.attempts - 1, 0),
            "eta": None,
            "expires": None,
            "root_id": job.parent_id or job.id,
            "parent_id": job.parent_id,
            "queue": job.queue,
        }
        self._add("task-received", job, details)
        self._add("task-started", job, {})

    def left(self, job: Job, outcome: RunOutcome, seconds: float) -> None:
        """Note what came of a run; of one whose job was lost, the new owner tells."""
        runtime: dict[str, Any] = {"runtime": seconds}
        reason = f"{outcome.error.specific_code}: {outcome.error.detail}" if outcome.error else ""
        match outcome.state:
            case "succeeded":
                self._add("task-succeeded", job, {**runtime, "result": "None"})
            case "failed":
                self._add("task-failed", job, {**runtime, "exception": reason, "traceback": ""})
            case "cancelled":
                details = {"terminated": True, "signum": None, "expired": False}
                self._add("task-revoked", job, runtime | details)
            case "queued" | "running":
                reason = reason or "waits for the end of another job"
                self._add("task-retried", job, {**runtime, "exception": reason, "traceback": ""})

    def _add(self, event: str, job: Job, details: dict[str, Any]) -> None:
        self._events.append((event, time.time(), {"uuid": job.id, **details}))

    def _run(self) -> None:
        while True:
            last = self._stopped.wait(FLUSH_SECONDS)
            try:
                self._send(until_stopped=not last)
            except (KombuError, RedisError, OSError) as error:
                log.warning("Celery's events not sent", reason=str(error))
                self._stopped.wait(OUTAGE_SECONDS)
            except Exception:
                log.exception("defect in Celery's events")
                self._stopped.wait(OUTAGE_SECONDS)
            if last:
                return

    def _send(self, *, until_stopped: bool) -> None:
        """Send what there is over one connection; go on until stopped, if asked to."""
        with self._app.connection_for_write() as connection:
            dispatcher = self._app.events.Dispatcher(
                connection,
                hostname=self._name,
                buffer_while_offline=False,
                buffer_group={"task"},
                buffer_limit=2 * BATCH,
            )
            while True:
                while self._events:
                    self._flush(dispatcher)
                if not until_stopped or self._stopped.wait(FLUSH_SECONDS):
                    return

    def _flush(self, dispatcher: Any) -> None:
        batch = [self._events.popleft() for _ in range(min(len(self._events), BATCH))]
        try:
            for event, timestamp, details in batch:
                dispatcher.send(event, timestamp=timestamp, **details)
            dispatcher.flush()
        except Exception:
            self._events.extendleft(reversed(batch))
            raise
