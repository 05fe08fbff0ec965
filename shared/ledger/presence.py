"""Which workers are alive, and what each last said of itself."""

import json
from dataclasses import dataclass
from typing import Any

import redis

from shared.ledger.connection import redis_errors
from shared.settings import LedgerSettings


@dataclass(frozen=True)
class WorkerInfo:
    """A worker's last word."""

    name: str
    #: ``cpu`` or ``gpu``.
    kind: str
    host: str
    #: What it says of itself: jobs in flight, and for GPU workers the cache and the handlers.
    status: dict[str, Any]


class Presence:
    """Workers announce themselves at every heartbeat; silence removes them."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._prefix = f"{settings.prefix}:worker:"
        self._lifetime_ms = round(settings.lease_seconds * 1000)

    def announce(self, worker: WorkerInfo) -> None:
        """Say that a worker is alive."""
        value = json.dumps({"kind": worker.kind, "host": worker.host, "status": worker.status})
        with redis_errors():
            self._redis.set(self._prefix + worker.name, value, px=self._lifetime_ms)

    def leave(self, name: str) -> None:
        """Say that a worker is gone."""
        with redis_errors():
            self._redis.delete(self._prefix + name)

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are alive, by name."""
        with redis_errors():
            keys = sorted(self._redis.scan_iter(match=self._prefix + "*", count=500))
            values = self._redis.mget(keys) if keys else []
        found = []
        for key, value in zip(keys, values, strict=True):
            if value is not None:
                fields = json.loads(value)
                found.append(WorkerInfo(name=key.removeprefix(self._prefix), **fields))
        return found
