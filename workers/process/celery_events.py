"""Celery's events of jobs, from which Flower shows them."""

import threading
import time
from collections import deque
from dataclasses import dataclass
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
FLUSH_SECONDS = 1.0
#: After a failure they are kept for this time before the next try.
OUTAGE_SECONDS = 2.0
#: The most events that are kept; older ones are dropped.
KEPT_EVENTS = 20_000
#: The most events in one message.
BATCH = 1000

log = structlog.get_logger()


@dataclass(frozen=True)
class _Event:
    name: str
    worker: str
    timestamp: float
    fields: dict[str, Any]


class CeleryEvents:
    """Sends events from a thread and a connection of its own, so that they delay no job.

    Events are what Flower shows, and no more: those that Redis misses for long are dropped.
    """

    def __init__(self, app: Celery, name: str) -> None:
        self._app = app
        self._name = name
        self._events: deque[_Event] = deque(maxlen=KEPT_EVENTS)
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
        reason = f"{outcome.error.specific_code}: {outcome.error.detail}" if outcome.error else ""
        event, details = _end(outcome.state, reason)
        if event:
            self._add(event, job, {"runtime": seconds, **details})

    def ended(self, job: Job) -> None:
        """Note the end of a job whose worker did not end it: it was lost, or did not run then."""
        if job.finished_at is None or job.started_at is None:
            return  # a client has revived it meanwhile
        reason = f"{job.error.code}: {job.error.detail}" if job.error else ""
        event, details = _end(job.state.value, reason)
        seconds = (job.finished_at - job.started_at).total_seconds()
        fields = {"uuid": job.id, "runtime": seconds, **details}
        # In the name of its worker, at a time at which that worker may have been alive.
        at = job.finished_at.timestamp()
        self._events.append(_Event(event, job.owner or self._name, at, fields))

    def _add(self, event: str, job: Job, details: dict[str, Any]) -> None:
        self._events.append(_Event(event, self._name, time.time(), {"uuid": job.id, **details}))

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
            for event in batch:
                dispatcher.hostname = event.worker
                dispatcher.send(event.name, timestamp=event.timestamp, **event.fields)
            dispatcher.flush()
        except Exception:
            self._events.extendleft(reversed(batch))
            raise


def _end(state: str, reason: str) -> tuple[str, dict[str, Any]]:
    """Return the event that tells of a job's state after a run, and its details."""
    match state:
        case "succeeded":
            return "task-succeeded", {"result": "None"}
        case "failed":
            return "task-failed", {"exception": reason, "traceback": ""}
        case "cancelled":
            return "task-revoked", {"terminated": True, "signum": None, "expired": False}
        case "queued" | "running":
            reason = reason or "waits for the end of another job"
            return "task-retried", {"exception": reason, "traceback": ""}
    return "", {}
