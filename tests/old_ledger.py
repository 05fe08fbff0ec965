"""A Redis as commit 041e199, whose ledger has schema 1, left it."""

import json
from pathlib import Path
from typing import Any

import redis

from shared.ledger.record import new_id

#: What ``record_old_ledger.py`` recorded.
OLD = json.loads((Path(__file__).parent / "integration" / "ledger_041e199.json").read_text())
OLD_PREFIX = "lifecycle"
NAMES: dict[str, str] = OLD["names"]
#: Fields and indices that hold times; the others of these values are not that large.
_TIMES = {
    *("created_at", "available_at", "started_at", "finished_at", "deadline", "start_by"),
    *("lease_until", "claimed_at"),
}

#: Celery's keys for its remote control, which a worker of any version writes when it has connected.
_REMOTE_CONTROL = ("_kombu.binding.celery.pidbox", "_kombu.binding_deadlines")


class OldRedis:
    """A database with what was recorded, as if it had been written just now."""

    def __init__(self, client: "redis.Redis", prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        seconds, microseconds = client.time()
        self.later = seconds * 1000 + microseconds // 1000 - OLD["time"]
        for key, (kind, value) in OLD["keys"].items():
            getattr(self, f"_{kind}")(self.key(key), value)

    def key(self, recorded: str) -> str:
        """Return what a recorded key is here."""
        head, colon, rest = recorded.partition(":")
        return f"{self.prefix}:{rest}" if colon and head == OLD_PREFIX else recorded

    def copies(self, name: str, number: int) -> list[str]:
        """Add jobs like a recorded one that has no relatives; return their ids."""
        original, ids = NAMES[name], [new_id() for _ in range(number)]
        for key, (kind, value) in OLD["keys"].items():
            if key == f"{OLD_PREFIX}:job:{original}":
                for each in ids:
                    own = value | {"id": each, "idempotency_key": ""}
                    self._hash(self.key(f"{OLD_PREFIX}:job:{each}"), own)
            elif key == f"{OLD_PREFIX}:events:{original}":
                for each in ids:
                    self._stream(self.key(f"{OLD_PREFIX}:events:{each}"), value)
            elif kind == "zset" and (scores := [s for member, s in value if member == original]):
                self._zset(self.key(key), [(each, scores[0]) for each in ids])
        return ids

    def end_leases(self, *names: str) -> None:
        """Let the time of some leases pass."""
        for name in names:
            self.client.hset(f"{self.prefix}:job:{NAMES[name]}", "lease_until", 1)

    def keys(self) -> set[str]:
        """Return all keys but those of this version."""
        own = {f"{self.prefix}:schema", *_REMOTE_CONTROL}
        every = {str(key) for key in self.client.scan_iter()} - own
        return {
            key for key in every if not key.startswith((f"{self.prefix}:2:", f"{self.prefix}."))
        }

    def _string(self, key: str, value: str) -> None:
        self.client.set(key, value)

    def _hash(self, key: str, value: dict[Any, Any]) -> None:
        for field, text in value.items():
            if text and (field in _TIMES or field.endswith(":last")):
                value = value | {field: str(int(text) + self.later)}
        self.client.hset(key, mapping=value)

    def _set(self, key: str, value: list[str]) -> None:
        self.client.sadd(key, *value)

    def _list(self, key: str, value: list[str]) -> None:
        self.client.rpush(key, *value)

    def _zset(self, key: str, value: list[tuple[str, float]]) -> None:
        scores = {member: score + self.later * (score > 1e12) for member, score in value}
        self.client.zadd(key, scores)

    def _stream(self, key: str, value: list[tuple[str, dict[str, str]]]) -> None:
        for entry, fields in value:
            self.client.xadd(key, fields, id=entry)  # type: ignore[arg-type]
