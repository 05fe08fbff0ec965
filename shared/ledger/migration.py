"""Adoption of the jobs that a version with schema 1 left in Redis.

Until schema 2 a ledger's keys began with ``LEDGER_PREFIX`` alone. ``migration.lua`` moves a job in
one call from its old keys to its new ones; so any number of processes may migrate at once, each may
die at any time, and what is left is found by the next one.
"""

import time
from dataclasses import dataclass

import redis
import structlog

from shared.errors import UnavailableError
from shared.ledger.connection import redis_errors
from shared.ledger.presence import Presence, WorkerInfo
from shared.ledger.schema import check_schema
from shared.ledger.scripts import REDIS_CLOCK, Scripts
from shared.settings import LedgerSettings, removed_settings

#: Jobs that are adopted in one call: Redis serves nobody else meanwhile.
PIECE = 50
#: Between two tries to reach a Redis that is away.
_OUTAGE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Adoption:
    """What one pass over the old ledger did."""

    adopted: int = 0
    #: Jobs that old workers still run, and the children of such jobs.
    left: int = 0


class OldLedger:
    """The keys of schema 1."""

    def __init__(
        self, client: "redis.Redis", settings: LedgerSettings, clock: str = REDIS_CLOCK
    ) -> None:
        self._redis = client
        self._old = settings.prefix
        self._presence = Presence(client, settings, prefix=settings.prefix)
        scripts = Scripts(settings, clock)
        self._prefix = scripts.prefix
        self._adopt = client.register_script(scripts.find("adopt")[0])
        self._adopt_rest = client.register_script(scripts.find("adopt_rest")[0])

    def workers(self) -> list[WorkerInfo]:
        """Return the workers of schema 1 that are alive, by name."""
        return self._presence.workers()

    def adopt(self) -> Adoption:
        """Move every job that no old worker runs, and the counters, to this version's keys."""
        with redis_errors():
            if not self._redis.exists(f"{self._old}:jobs", f"{self._old}:counts"):
                return Adoption()
            last, adopted = self._piece("")
            while last:
                last, more = self._piece(last)
                adopted += more
            (left, _) = self._adopt_rest([self._prefix], ["adopt_rest", "", self._old])
        if adopted:
            log.info("jobs of an older version adopted", adopted=adopted, left=left)
        return Adoption(adopted, left)

    def _piece(self, after: str) -> tuple[str, int]:
        (last, adopted), _ = self._adopt([self._prefix], ["adopt", "", self._old, after, PIECE])
        return last, adopted


def prepare_ledger(client: "redis.Redis", settings: LedgerSettings) -> Adoption:
    """Check the schema, and adopt the jobs of an older version; what a process does at its start.

    Raise ``SchemaError`` if a later version uses this Redis. Jobs that old workers run are left to
    ``OldLedger.adopt``, which the reconcilers call.
    """
    check_schema(client, settings)
    for name in removed_settings():
        log.warning("a setting of earlier versions has no effect", setting=name)
    old = OldLedger(client, settings)
    adoption = old.adopt()
    if adoption.left:
        names = [worker.name for worker in old.workers()]
        log.warning("jobs of workers of an older version", jobs=adoption.left, workers=names)
    return adoption


def await_ledger(client: "redis.Redis", settings: LedgerSettings) -> None:
    """Do what ``prepare_ledger`` does, as soon as Redis answers."""
    reason = ""
    while True:
        try:
            prepare_ledger(client, settings)
        except UnavailableError as error:
            if reason != error.detail:
                reason = error.detail
                log.warning("waiting for Redis", reason=reason)
            time.sleep(_OUTAGE_SECONDS)
        else:
            return
