"""Which workers are alive, and what each last said of itself."""

import json
import time
from dataclasses import dataclass
from typing import Any

import redis

from shared.ledger.connection import redis_errors
from shared.ledger.schema import schema_prefix
from shared.settings import LedgerSettings


@dataclass(frozen=True)
class WorkerInfo:
    """A worker's last word."""

    name: str
    #: ``cpu``, ``gpu`` or ``ollama``.
    kind: str
    host: str
    #: What it says of itself: jobs in flight, and for GPU workers the cache and the handlers.
    status: dict[str, Any]

    @property
    def handlers(self) -> list[str]:
        """The handlers of a GPU worker, as ``task:engine`` or ``task:engine:architecture``."""
        handlers: list[str] = self.status.get("inference", {}).get("stats", {}).get("handlers", [])
        return handlers

    @property
    def fault(self) -> str | None:
        """What is wrong with the worker, by its own word; None if nothing is."""
        if self.status.get("draining"):
            return None  # it consumes no more because it was told so
        return None if self.status.get("consuming", True) else "it does not consume its queues"


#: Handlers are known for this long after the last worker that had them.
HANDLERS_KEPT_SECONDS = 86400


class Presence:
    """Workers announce themselves at every heartbeat; silence removes them."""

    def __init__(
        self, client: "redis.Redis", settings: LedgerSettings, prefix: str | None = None
    ) -> None:
        """Take the prefix of another schema's keys to see the workers of that schema."""
        self._redis = client
        prefix = prefix or schema_prefix(settings)
        self._prefix = f"{prefix}:worker:"
        #: Names of all workers, so that nobody has to search all of Redis for them.
        self._names = f"{prefix}:workers"
        #: Handlers by when they were last announced.
        self._handlers = f"{prefix}:handlers"
        self._lifetime_ms = round(settings.lease_seconds * 1000)

    def announce(self, worker: WorkerInfo) -> None:
        """Say that a worker is alive."""
        value = json.dumps({"kind": worker.kind, "host": worker.host, "status": worker.status})
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(self._prefix + worker.name, value, px=self._lifetime_ms)
            pipe.sadd(self._names, worker.name)
            if worker.handlers:
                pipe.zadd(self._handlers, dict.fromkeys(worker.handlers, time.time()))
                pipe.zremrangebyscore(self._handlers, "-inf", _forgotten())
            pipe.execute()

    def leave(self, name: str) -> None:
        """Say that a worker is gone."""
        with redis_errors():
            self._redis.delete(self._prefix + name)

    def fault(self, name: str) -> str | None:
        """Return why a worker is not well; None if it is. This is what health checks go by."""
        with redis_errors():
            value = self._redis.get(self._prefix + name)
        if value is None:
            return f"it has said nothing for {self._lifetime_ms / 1000:g} s"
        return self._read(name, value).fault

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are alive, by name."""
        with redis_errors():
            names = sorted(map(str, self._redis.smembers(self._names)))
            values = self._redis.mget([self._prefix + name for name in names]) if names else []
            said = dict(zip(names, values, strict=True))
            if silent := [name for name, value in said.items() if value is None]:
                # One that speaks again meanwhile is back with its next heartbeat.
                self._redis.srem(self._names, *silent)
        return [self._read(name, value) for name, value in said.items() if value is not None]

    def handlers(self) -> list[str]:
        """Return what GPU workers could do within the last day."""
        with redis_errors():
            handlers = self._redis.zrangebyscore(self._handlers, _forgotten(), "inf")
        return [str(handler) for handler in handlers]

    def _read(self, name: str, value: str | bytes) -> WorkerInfo:
        said = json.loads(value)
        # Nothing else: one of a later version may say more.
        return WorkerInfo(name, said["kind"], said["host"], said["status"])


def _forgotten() -> float:
    """Return the time before which an announcement no longer counts."""
    return time.time() - HANDLERS_KEPT_SECONDS
