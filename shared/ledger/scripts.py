"""The Lua library beside this module, as one script that runs one operation atomically."""

import hashlib
import json
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from shared.ledger.claims import Want
from shared.ledger.counts import RUN_SECONDS_BOUNDS
from shared.ledger.epoch import epoch_key
from shared.ledger.schema import celery_queue, schema_prefix
from shared.settings import LedgerSettings

T = TypeVar("T")
#: Lua for the milliseconds of Redis' own clock, which all processes share.
REDIS_CLOCK = """(function()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end)()"""
#: A job that does not stop at its deadline is taken from its worker after this time.
DEADLINE_GRACE_SECONDS = 10
#: The share of Redis' ``maxmemory`` beyond which ended jobs are forgotten before their time.
CROWDED = 0.8
#: The most ended jobs that are looked at to find some whose parents have ended too.
SCAN = 6000
#: An ended job is kept for this time, whatever the memory, for clients that wait for its end.
SPARED_SECONDS = 60
#: A queued job and a parent are looked at this often, in case everything else fails.
PARKED_SECONDS = 600
#: A job tries again so soon after it first met an outage; the wait doubles with each further try.
OUTAGE_BACKOFF_SECONDS = 1.0
#: A slot that leaves a job to a worker where its model is warm asks again after this time.
AFFINITY_PAUSE_SECONDS = 0.03
#: A record is pushed to waiting API processes up to this size; they read larger ones themselves.
PUSHED_BYTES = 64 * 1024
#: Children of a batch that are written, cancelled or revived in one call: Redis serves nobody else
#: meanwhile.
PIECE = 25
#: The most ended jobs of which a Celery that cannot be told is told later.
UNTOLD = 1000
#: Ended children that are added to the result of a batch in one call.
TALLY = 250
#: Children of a batch that a listing looks at one by one.
LISTED_CHILDREN = 250
#: The files of the library, each of which uses those before it.
_PARTS = (
    *("schema", "queue", "transitions", "batches", "operations", "maintenance", "migration"),
    "frame",
)
#: Operations in whose call a slot may claim its next jobs.
_CLAIMING = {"claim", "finish", "requeue", "postpone", "delegate"}
_CLAIM = "if ARGV[2] ~= ''"
#: A top-level definition or statement of Lua: its first line, and what is indented under it.
_BLOCK = re.compile(r"^(?!end\b|[ })]|--).+\n(?:(?:[ })].*|end.*)?\n)*", re.MULTILINE)
#: The definition of a function that few calls reach: what is before its name, that, and after it.
_RARE = re.compile(r"(local function |)(\w+)( = function|)\(.*\) -- rare$", re.MULTILINE)
_NAMES = re.compile(r"\A(?:local function|function|local)?\s*([\w., ]+)")
_WORD = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class Operation:
    """One call of the script."""

    name: str
    arguments: tuple[str | float, ...] = ()
    #: What to claim in the same call.
    want: Want | None = None


@dataclass(frozen=True)
class Commands:
    """Plain commands of Redis, sent together."""

    commands: tuple[tuple[str | int, ...], ...]


#: A generator of calls that returns a ``T``.
Steps = Generator[Operation | Commands, Any, T]


class Scripts:
    """One script for each operation: the parts of the library that it needs."""

    def __init__(self, settings: LedgerSettings, clock: str = REDIS_CLOCK) -> None:
        """Take ``clock``, what Lua evaluates to the present in milliseconds, once per call."""
        self.prefix = schema_prefix(settings)
        self._head = f"local now = {clock}\n{_constants(settings)}"
        self._scripts: dict[str, tuple[str, str]] = {}
        # All at once: what is installed may be of another version by the time of the first use.
        for name in _operations():
            self.find(name)

    def find(self, operation: str) -> tuple[str, str]:
        """Return an operation's script and its SHA-1."""
        if operation not in self._scripts:
            source = self._head + _needed(f"operations.{operation}")
            digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            self._scripts[operation] = source, digest
        return self._scripts[operation]

    @staticmethod
    def arguments(operation: Operation) -> list[str | float]:
        """Return the arguments of a call."""
        want = _encoded(operation.want) if operation.want else ""
        return [operation.name, want, *operation.arguments]


def _encoded(want: Want) -> str:
    return json.dumps({name: value for name, value in vars(want).items() if value is not None})


def _constants(settings: LedgerSettings) -> str:
    milliseconds = {
        "lease": settings.lease_seconds,
        # Without a reconciliation for this long, leases were not renewed either.
        "longest_silence": max(settings.lease_seconds / 2, 3 * settings.reconcile_seconds),
        "parked": PARKED_SECONDS,
        "backoff": settings.backoff_seconds,
        "retention": settings.retention_seconds,
        "events_kept": settings.events_seconds,
        "grace": DEADLINE_GRACE_SECONDS,
        "outage_budget": settings.outage_budget_seconds,
        "outage_backoff": OUTAGE_BACKOFF_SECONDS,
        "outage_backoff_max": settings.outage_backoff_max_seconds,
        "spared": SPARED_SECONDS,
        "affinity_window": settings.affinity_seconds,
        "affinity_pause": AFFINITY_PAUSE_SECONDS,
    }
    constants = {name: str(round(seconds * 1000)) for name, seconds in milliseconds.items()}
    as_they_are = (
        *("max_queued", "max_queued_per_submitter", "max_request_bytes"),
        *("quarantine_crashes", "max_crashes", "events_max"),
    )
    constants |= {name: str(getattr(settings, name)) for name in as_they_are}
    constants |= {
        "celery_prefix": f"'{celery_queue(settings, '')}'",
        "epoch_key": f"'{epoch_key(settings)}'",
        "crowded": str(CROWDED),
        "scan": str(SCAN),
        "piece_size": str(PIECE),
        "tally_size": str(TALLY),
        "most_untold": str(UNTOLD),
        "listed_size": str(LISTED_CHILDREN),
        "pushed_bytes": str(PUSHED_BYTES),
        "run_bounds": f"{{{','.join(str(round(bound * 1000)) for bound in RUN_SECONDS_BOUNDS)}}}",
    }
    return "".join(f"local {name} = {value}\n" for name, value in constants.items())


@cache
def _blocks() -> tuple[str, ...]:
    """Return the top-level definitions and statements of the library, in order."""
    files = resources.files("shared.ledger")
    library = "".join(files.joinpath(f"{name}.lua").read_text("utf-8") for name in _PARTS)
    return tuple(_BLOCK.findall(library))


def _operations() -> list[str]:
    names = (name for block in _blocks() for name in _defined(block))
    return [name.removeprefix("operations.") for name in names if name.startswith("operations.")]


@cache
def _needed(operation: str) -> str:
    """Return the library without what an operation does not use.

    Redis runs the whole script at each call, and to define a function takes half a microsecond. So
    what only a function marked as rare uses is defined inside it.
    """
    claims = operation.removeprefix("operations.") in _CLAIMING
    blocks = [block for block in _blocks() if claims or not block.startswith(_CLAIM)]
    statements = {place for place, block in enumerate(blocks) if not _defined(block)}
    needed = _used(blocks, statements, {operation})
    parts = []
    for place in sorted(needed):
        if rare := _RARE.match(blocks[place]):
            before, name, after = rare.groups()
            parts.append(f"{before}{name}{after}(...)\n")
            parts += [blocks[each] for each in sorted(_used(blocks, {place}) - needed)]
            parts += [f"local {name}\n" if after else "", blocks[place]]
            parts.append(f"return {name}(...)\nend\n")
        else:
            parts.append(blocks[place])
    return "".join(parts)


def _used(blocks: list[str], first: set[int], names: Iterable[str] = ()) -> set[int]:
    """Return the places of some blocks and of all that they use, but for what rare ones use."""
    found, used = set[int](), set(names)
    new = first | {place for place, block in enumerate(blocks) if _defined(block) & used}
    while new:
        found |= new
        for place in new:
            if place in first or not _RARE.match(blocks[place]):
                used.update(_WORD.findall(blocks[place]))
        new = {place for place, block in enumerate(blocks) if _defined(block) & used} - found
    return found


@cache
def _defined(block: str) -> frozenset[str]:
    """Return the names that a block defines; none for a statement, which is always needed."""
    if block.startswith(("local ", "function ")) or re.match(r"[\w.]+ = ", block):
        match = _NAMES.match(block)
        assert match is not None  # noqa: S101 - each definition names something
        return frozenset(match[1].replace(" ", "").split(","))
    return frozenset()
