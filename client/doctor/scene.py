"""Where the doctor looks: the stack that runs here, if one does, else where the settings point."""

from dataclasses import dataclass
from pathlib import Path

import redis
from pydantic import SecretStr

from client import Client, Retries
from embedded.data_directory import DataDirectory, StackRecord
from shared.ledger import Presence, connect
from shared.settings import LakeFSSettings, RedisSettings, Settings

#: What is not there is not there: the doctor asks once, and waits a little more than a probe does.
_ATTEMPTS = 1
_REDIS_SECONDS = 2.0
_LAKEFS_SECONDS = 3.0


@dataclass(frozen=True)
class Scene:
    """What is examined."""

    settings: Settings
    directory: DataDirectory
    record: StackRecord | None
    api_url: str | None

    @classmethod
    def of(cls, data_dir: Path, api_url: str | None) -> "Scene":
        """Look at what runs on a data directory, and at the settings."""
        directory = DataDirectory(data_dir)
        return cls(Settings(), directory, directory.running(), api_url)

    def client(self) -> Client:
        """Return a client of the API that asks once."""
        return Client(self.api_url, retries=Retries(attempts=_ATTEMPTS))

    def redis(self) -> "redis.Redis":
        """Return a client of the Redis that the platform here uses."""
        url = self.settings.redis.url.get_secret_value()
        if self.record:
            probe = self.record.component("redis").probe
            url = getattr(probe, "url", url)
        return connect(
            RedisSettings.model_validate({"url": url, "timeout_seconds": _REDIS_SECONDS})
        )

    def presence(self) -> Presence:
        """Return where workers announce themselves."""
        return Presence(self.redis(), self.settings.ledger)

    def old_presence(self) -> Presence:
        """Return where workers of schema 1 announce themselves."""
        ledger = self.settings.ledger
        return Presence(self.redis(), ledger, prefix=ledger.prefix)

    def lakefs(self) -> LakeFSSettings:
        """Return how to reach the lakeFS that the platform here uses."""
        known: dict[str, object] = {"timeout_seconds": _LAKEFS_SECONDS}
        if self.record:
            known["endpoint"] = self.record.component("lakefs").address
        if self.starts("lakefs"):
            keys = self.directory.credentials()
            known["access_key_id"] = keys.access_key_id
            known["secret_access_key"] = SecretStr(keys.secret_access_key)
        return self.settings.lakefs.model_copy(update=known)

    def starts(self, part: str) -> bool:
        """Return whether the stack that runs here starts a part, and restarts it when it dies."""
        parts = self.record.components if self.record else ()
        return any(each.name.startswith(part) and each.note != "from outside" for each in parts)

    def log_of(self, part: str) -> str:
        """Say where a part of the stack that runs here tells more."""
        if self.record is None:
            return ""
        names = [each.name for each in self.record.components if each.name.startswith(part)]
        return f"; its log: {self.directory.logs / names[0]}.log" if names else ""
