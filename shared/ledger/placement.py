"""On which host each model of the staging area lies, and how it came there."""

from datetime import datetime

import redis
from pydantic import BaseModel, ConfigDict

from shared.ledger.connection import redis_errors
from shared.requests import DownloadRequest
from shared.settings import LedgerSettings


class Placed(BaseModel):
    """A model that a download staged."""

    model_config = ConfigDict(frozen=True)

    host: str
    #: What to download to have the same files again, pinned to its commit.
    source: DownloadRequest
    files: int
    size_bytes: int
    staged_at: datetime


class Placement:
    """Written when a download ends, read when an upload is queued."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._key = f"{settings.prefix}:placed"

    def record(self, placed: Placed) -> None:
        """Say that a model is staged on a host; the last to say so is where it is uploaded."""
        value = placed.model_dump_json(exclude_none=True)
        with redis_errors():
            self._redis.hset(self._key, placed.source.local_model_name, value)

    def find(self, local_model_name: str) -> Placed | None:
        """Return where a model was last staged; None if no download staged it."""
        with redis_errors():
            value = self._redis.hget(self._key, local_model_name)
        return Placed.model_validate_json(str(value)) if value is not None else None

    def host_of(self, local_model_name: str) -> str | None:
        """Return the host that a model was last staged on; None if no download staged it."""
        placed = self.find(local_model_name)
        return placed.host if placed else None

    def list(self) -> tuple[Placed, ...]:
        """Return all models that downloads staged, by name."""
        with redis_errors():
            values = self._redis.hgetall(self._key)
        return tuple(Placed.model_validate_json(str(value)) for _, value in sorted(values.items()))
