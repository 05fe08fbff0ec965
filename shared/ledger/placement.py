"""On which host each model of the staging area lies, and how it came there."""

import json
from dataclasses import dataclass

import redis

from shared.ledger.connection import redis_errors
from shared.requests import DownloadRequest
from shared.settings import LedgerSettings


@dataclass(frozen=True)
class Placed:
    """A model that a download staged."""

    host: str
    #: What to download to have the same files again, pinned to its commit; None if not known.
    source: DownloadRequest | None


class Placement:
    """Written when a download ends, read when an upload is queued."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._hosts = f"{settings.prefix}:staged"
        self._sources = f"{settings.prefix}:staged_from"

    def record(self, local_model_name: str, placed: Placed) -> None:
        """Say that a model is staged on a host."""
        source = placed.source.model_dump_json(exclude_none=True) if placed.source else "null"
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.hset(self._hosts, local_model_name, placed.host)
            pipe.hset(self._sources, local_model_name, source)
            pipe.execute()

    def find(self, local_model_name: str) -> Placed | None:
        """Return where a model was last staged; None if no download staged it."""
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.hget(self._hosts, local_model_name)
            pipe.hget(self._sources, local_model_name)
            host, source = pipe.execute()
        if host is None:
            return None
        known = json.loads(source) if source else None
        return Placed(str(host), DownloadRequest.model_validate(known) if known else None)

    def host_of(self, local_model_name: str) -> str | None:
        """Return the host that a model was last staged on; None if no download staged it."""
        placed = self.find(local_model_name)
        return placed.host if placed else None
