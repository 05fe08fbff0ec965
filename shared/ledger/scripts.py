"""The Lua scripts beside this: each is one atomic operation on the ledger."""

import hashlib
from importlib import resources
from typing import Any

import redis
from redis.exceptions import NoScriptError

from shared.ledger.connection import redis_errors
from shared.ledger.counts import RUN_SECONDS_BOUNDS
from shared.settings import LedgerSettings

#: Lua for the milliseconds of Redis' own clock, which all processes share.
REDIS_CLOCK = """(function()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end)()"""
#: A job that does not stop at its deadline is taken from its worker after this time.
DEADLINE_GRACE_SECONDS = 10
#: What every operation may use, in the order in which it builds on itself.
_PARTS = ("prelude", "counting", "transitions", "batches")


class Scripts:
    """Runs operations by name."""

    def __init__(
        self, client: "redis.Redis", settings: LedgerSettings, clock: str = REDIS_CLOCK
    ) -> None:
        """Take ``clock``, what Lua evaluates to the present in milliseconds, once per operation."""
        self._redis = client
        self._prefix = settings.prefix
        self._preamble = "".join(
            (f"local now = {clock}\n", _constants(settings), *map(_source, _PARTS))
        )
        self._prepared: dict[str, tuple[str, str]] = {}

    def run(self, name: str, *arguments: str | float) -> Any:
        """Run an operation; return what it returns."""
        source, digest = self._script(name)
        with redis_errors():
            try:
                return self._redis.evalsha(digest, 1, self._prefix, *arguments)
            except NoScriptError:
                return self._redis.eval(source, 1, self._prefix, *arguments)

    def _script(self, name: str) -> tuple[str, str]:
        if name not in self._prepared:
            source = self._preamble + _source(name)
            digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            self._prepared[name] = (source, digest)
        return self._prepared[name]


def _constants(settings: LedgerSettings) -> str:
    milliseconds = {
        "lease": settings.lease_seconds,
        "republish": settings.republish_seconds,
        "backoff": settings.backoff_seconds,
        "retention": settings.retention_seconds,
        "grace": DEADLINE_GRACE_SECONDS,
    }
    constants = {name: str(round(seconds * 1000)) for name, seconds in milliseconds.items()}
    constants |= {
        "max_crashes": str(settings.max_crashes),
        "events_max": str(settings.events_max),
        "run_bounds": f"{{{','.join(str(round(bound * 1000)) for bound in RUN_SECONDS_BOUNDS)}}}",
    }
    return "".join(f"local {name} = {value}\n" for name, value in constants.items())


def _source(name: str) -> str:
    return resources.files("shared.ledger").joinpath(f"{name}.lua").read_text("utf-8")
