"""The Lua scripts beside this: each is one atomic operation on the ledger."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import redis
from redis.exceptions import NoScriptError

from shared.jobs import JobKind
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
#: The share of Redis' ``maxmemory`` beyond which ended jobs are forgotten before their time.
CROWDED = 0.8
#: So many of them are looked at for some whose parents have ended too.
SCAN = 6000
#: Who waits for a job's end has this time to see it, whatever the memory.
SPARED_SECONDS = 60
#: A queued job that is not hinted, and a parent, are looked at this often, should all else fail.
PARKED_SECONDS = 600
#: What every operation may use, in the order in which it builds on itself.
_PARTS = ("prelude", "counting", "outages", "admission", "lanes", "transitions", "batches")
#: A job tries again so soon after it first met an outage; the wait doubles with each further try.
OUTAGE_BACKOFF_SECONDS = 1.0
#: A Redis whose memory is full refuses what adds to it. All else goes on and makes room: it asks
#: for memory only before a script's first write, and this one frees some.
_REFUSED_WHEN_FULL = {"accept", "revive"}
_READS = {"snapshot"}
_FIRST_WRITE = "redis.call('DEL', key('nothing'))\n"
_FRAME = """local function operation()
%s
end
local answer = operation()
return {answer, hints()}
"""


@dataclass(frozen=True)
class Hint:
    """A job that Celery is to know of."""

    id: str
    kind: JobKind
    #: What Flower calls it.
    model: str
    queue: str
    priority: int


class Scripts:
    """Runs operations by name."""

    def __init__(
        self, client: "redis.Redis", settings: LedgerSettings, clock: str = REDIS_CLOCK
    ) -> None:
        """Take ``clock``, what Lua evaluates to the present in milliseconds, once per operation."""
        self._redis = client
        self._prefix = settings.prefix
        parts = map(_source, _PARTS)
        preamble = "".join((f"local now = {clock}\n", _constants(settings), *parts))
        # All at once: what is installed may be of another version by the time of the first use.
        self._scripts = {name: _script(preamble, name) for name in _operations()}

    def run(self, name: str, *arguments: str | float) -> tuple[Any, tuple[Hint, ...]]:
        """Run an operation; return what it returns, and the hints that follow from it."""
        source, digest = self._scripts[name]
        with redis_errors():
            try:
                answer, hints = self._redis.evalsha(digest, 1, self._prefix, *arguments)
            except NoScriptError:
                answer, hints = self._redis.eval(source, 1, self._prefix, *arguments)
        return answer, tuple(_hint(*hint) for hint in hints)


def _constants(settings: LedgerSettings) -> str:
    milliseconds = {
        "lease": settings.lease_seconds,
        "parked": PARKED_SECONDS,
        "republish": settings.republish_seconds,
        "backoff": settings.backoff_seconds,
        "retention": settings.retention_seconds,
        "grace": DEADLINE_GRACE_SECONDS,
        "outage_budget": settings.outage_budget_seconds,
        "outage_backoff": OUTAGE_BACKOFF_SECONDS,
        "outage_backoff_max": settings.outage_backoff_max_seconds,
        "spared": SPARED_SECONDS,
    }
    constants = {name: str(round(seconds * 1000)) for name, seconds in milliseconds.items()}
    as_they_are = (
        *("window", "max_queued", "max_queued_per_submitter", "max_request_bytes"),
        *("quarantine_crashes", "max_crashes", "events_max"),
    )
    constants |= {name: str(getattr(settings, name)) for name in as_they_are}
    constants |= {
        "crowded": str(CROWDED),
        "scan": str(SCAN),
        "run_bounds": f"{{{','.join(str(round(bound * 1000)) for bound in RUN_SECONDS_BOUNDS)}}}",
    }
    return "".join(f"local {name} = {value}\n" for name, value in constants.items())


def _hint(job_id: str, kind: str, model: str, queue: str, priority: str) -> Hint:
    return Hint(job_id, JobKind(kind), model, queue, int(priority))


def _operations() -> list[str]:
    names = (file.name for file in resources.files("shared.ledger").iterdir())
    lua = (name.removesuffix(".lua") for name in names if name.endswith(".lua"))
    return [name for name in lua if name not in _PARTS]


def _script(preamble: str, name: str) -> tuple[str, str]:
    first = "" if name in _REFUSED_WHEN_FULL | _READS else _FIRST_WRITE
    source = preamble + first + _FRAME % _source(name)
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@cache
def _source(name: str) -> str:
    return resources.files("shared.ledger").joinpath(f"{name}.lua").read_text("utf-8")
