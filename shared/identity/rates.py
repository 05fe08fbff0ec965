"""How often somebody may call: a token bucket for each, in Redis, so that all fronts share it."""

import math
from importlib import resources

from redis.asyncio import Redis

from shared.errors import RateLimitedError
from shared.ledger import redis_errors


class RateLimit:
    """So many calls a second for each caller, after a burst."""

    def __init__(self, client: Redis, prefix: str, *, per_second: float, burst: int) -> None:
        self._prefix = f"{prefix}:calls:"
        self._rate = (per_second, burst)
        source = resources.files("shared.identity").joinpath("take.lua").read_text("utf-8")
        self._script = client.register_script(source)

    @property
    def applies(self) -> bool:
        """Whether there is a limit at all."""
        return self._rate[0] > 0

    async def take(self, who: str) -> None:
        """Count a call; raise ``RateLimitedError`` if it is one too many."""
        if not self.applies:
            return
        with redis_errors():
            wait_ms = int(await self._script(keys=[self._prefix + who], args=self._rate))
        if wait_ms:
            seconds = math.ceil(wait_ms / 1000)
            raise RateLimitedError(
                f"more than {self._rate[0]:g} calls a second; try again in {seconds} s", seconds
            )
