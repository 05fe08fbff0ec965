"""On which host each model of the staging area lies."""

import redis

from shared.ledger.connection import redis_errors
from shared.settings import LedgerSettings


class Placement:
    """Written when a download ends, read when an upload is queued."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._key = f"{settings.prefix}:staged"

    def record(self, local_model_name: str, host_id: str) -> None:
        """Say that a model is staged on a host."""
        with redis_errors():
            self._redis.hset(self._key, local_model_name, host_id)

    def host_of(self, local_model_name: str) -> str | None:
        """Return the host that a model was last staged on; None if no download staged it."""
        with redis_errors():
            host = self._redis.hget(self._key, local_model_name)
        return str(host) if host is not None else None
