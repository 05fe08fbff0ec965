"""What a submit says beside its request: who asks, how long to wait, and the key to ask again."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query

from api.callers import Calling

#: RFC 7240: ``Prefer: wait=10``.
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d+)")
MAX_WAIT_SECONDS = 120


@dataclass(frozen=True)
class Wait:
    """What the headers and the query of a submit say."""

    seconds: float
    #: Scoped to the submitter: equal keys of two of them have nothing to do with each other.
    idempotency_key: str | None
    #: The id of the caller's API key.
    submitter: str


def _wait(
    caller: Calling,
    wait: Annotated[
        float | None,
        Query(
            ge=0, le=MAX_WAIT_SECONDS, description="Hold the answer for the job's end, in seconds."
        ),
    ] = None,
    prefer: Annotated[
        str | None, Header(description="`wait=N` does what the query parameter does.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="The same key with the same request gives the same job.",
        ),
    ] = None,
) -> Wait:
    if wait is None:
        preferred = _WAIT.search(prefer or "")
        # A preference is not a demand: more than we hold is held for as long as we do.
        wait = min(float(preferred[1]), MAX_WAIT_SECONDS) if preferred else 0
    return Wait(wait, idempotency_key, caller.id)


Waiting = Annotated[Wait, Depends(_wait)]
