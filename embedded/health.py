"""How to see that a part of the stack works; kept as data, so that `status` can look again."""

from functools import cache
from typing import Annotated, Literal

import httpx
import redis
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import LifecycleError
from shared.ledger import Presence, connect
from shared.settings import LedgerSettings, RedisSettings

_TIMEOUT_SECONDS = 2.0


class HttpProbe(BaseModel):
    """An address that answers with success."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["http"] = "http"
    url: str

    def healthy(self) -> bool:
        """Ask once; blocks for two seconds at most."""
        try:
            return _http().get(self.url).is_success
        except httpx.HTTPError:
            return False

    def forget(self) -> None:
        """Do nothing: an address remembers no one."""


class RedisProbe(BaseModel):
    """A Redis that answers PING."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["redis"] = "redis"
    url: str

    def healthy(self) -> bool:
        """Ask once; blocks for two seconds at most."""
        try:
            return bool(_redis(self.url).ping())
        except redis.RedisError:
            return False

    def forget(self) -> None:
        """Do nothing: an address remembers no one."""


class WorkerProbe(BaseModel):
    """A worker that announces itself in the ledger at every heartbeat, and consumes."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["worker"] = "worker"
    redis_url: str
    worker: str

    def healthy(self) -> bool:
        """Ask once; blocks for two seconds at most."""
        try:
            return _presence(self.redis_url).fault(self.worker) is None
        except LifecycleError:
            return False

    def forget(self) -> None:
        """Wipe out the last word of a worker that died, so that only its successor's counts."""
        try:
            _presence(self.redis_url).leave(self.worker)
        except LifecycleError:
            return


Probe = Annotated[HttpProbe | RedisProbe | WorkerProbe, Field(discriminator="kind")]


@cache
def _http() -> httpx.Client:
    # What we ask is on this machine or was named by its operator: no proxy in between.
    return httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False, follow_redirects=True)


@cache
def _redis(url: str) -> "redis.Redis":
    return connect(RedisSettings.model_validate({"url": url, "timeout_seconds": _TIMEOUT_SECONDS}))


@cache
def _presence(redis_url: str) -> Presence:
    return Presence(_redis(redis_url), LedgerSettings())
