"""The number of the ledger's layout in Redis: no process misreads that of another version."""

import redis

from shared.errors import LifecycleError
from shared.ledger.connection import redis_errors
from shared.settings import LedgerSettings

#: Part of every key of the ledger; raised with each change that another version would misread.
SCHEMA = 2


class SchemaError(LifecycleError):
    """Redis holds a ledger of a later version."""

    code = "schema_unknown"


def schema_prefix(settings: LedgerSettings) -> str:
    """Return what is before every key of this version's ledger."""
    return f"{settings.prefix}:{SCHEMA}"


def celery_queue(settings: LedgerSettings, queue: str) -> str:
    """Return Celery's name of a queue, which is also the key of its list in Redis."""
    return f"{settings.prefix}.{queue}"


#: Key: the number. Argument: this version's number. Returns the number that was there.
_RAISE = """
local found = tonumber(redis.call('GET', KEYS[1]) or 0)
if found < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return found
"""


def check_schema(client: "redis.Redis", settings: LedgerSettings) -> None:
    """Record this version's number; raise ``SchemaError`` where a later version was here."""
    with redis_errors():
        found = int(str(client.eval(_RAISE, 1, f"{settings.prefix}:schema", SCHEMA)))
    if found > SCHEMA:
        raise SchemaError(
            f"a later version of the platform uses this Redis (schema {found}, here {SCHEMA}): "
            "install that version, or give this process a REDIS_URL or LEDGER_PREFIX of its own"
        )
