"""Where API keys are: one hash in Redis for the records, one for when each was last used."""

from contextlib import suppress
from datetime import UTC, datetime

import redis

from shared.errors import NotFoundError, UnavailableError
from shared.identity.keys import ApiKey, issue
from shared.identity.roles import Role
from shared.ledger import redis_errors
from shared.settings import LedgerSettings


class KeyStore:
    """Keeps keys. A revoked key stays on record, so the last revocation opens nothing."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._records = f"{settings.prefix}:api-keys"
        # Apart from the records: a use that is noted late cannot undo a revocation.
        self._uses = f"{settings.prefix}:api-keys:used"

    def create(
        self, name: str, role: Role, expires_at: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """Return a fresh key and its text, which is kept nowhere."""
        key, text = issue(name, role, expires_at)
        self._write(key)
        return key, text

    def find(self, key_id: str) -> ApiKey | None:
        """Return a key's record; None if there is none."""
        with redis_errors():
            record = self._redis.hget(self._records, key_id)
        return ApiKey.model_validate_json(str(record)) if record is not None else None

    def all(self) -> list[ApiKey]:
        """Return every key, the oldest first, with when it was last used."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hvals(self._records)
            pipe.hgetall(self._uses)
            records, uses = pipe.execute()
        keys = [ApiKey.model_validate_json(record) for record in records]
        return [
            key.model_copy(update={"last_used_at": _time(uses.get(key.id))})
            for key in sorted(keys, key=lambda key: key.created_at)
        ]

    def revoke(self, key_id: str) -> ApiKey:
        """Make a key good for nothing; the fronts notice within seconds."""
        key = self.find(key_id)
        if key is None:
            raise NotFoundError(f"there is no API key {key_id!r}", code="key_not_found")
        if key.revoked_at is None:
            key = key.model_copy(update={"revoked_at": datetime.now(UTC)})
            self._write(key)
        return key

    def exist(self) -> bool:
        """Return whether a key was ever made."""
        with redis_errors():
            return bool(self._redis.exists(self._records))

    def note_use(self, key_id: str) -> None:
        """Remember that a key is in use now; a Redis that refuses writes keeps nobody out."""
        with suppress(UnavailableError), redis_errors():
            self._redis.hset(self._uses, key_id, datetime.now(UTC).timestamp())

    def _write(self, key: ApiKey) -> None:
        record = key.model_dump_json(exclude={"last_used_at"})
        with redis_errors():
            self._redis.hset(self._records, key.id, record)


def _time(seconds: str | None) -> datetime | None:
    return datetime.fromtimestamp(float(seconds), UTC) if seconds else None
