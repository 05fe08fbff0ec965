"""What a submit says beside its request: who asks, how long to wait, and the key to ask again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from api.callers import Calling

#: One preference of a ``Prefer`` header (RFC 7240); commas inside quoted strings do not separate.
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
#: ``wait=10``: names are case-insensitive, values may be quoted, parameters may follow.
_WAIT = re.compile(r'\s*wait\s*=\s*("?)(\d+)\1\s*(?:;|$)', re.IGNORECASE | re.ASCII)
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
    request: Request,
    caller: Calling,
    wait: Annotated[
        float | None,
        Query(
            ge=0, le=MAX_WAIT_SECONDS, description="Hold the answer for the job's end, in seconds."
        ),
    ] = None,
    prefer: Annotated[  # noqa: ARG001 - declared for OpenAPI; a call may have several
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
        wait = preferred_seconds(request.headers.getlist("prefer"))
    return Wait(wait, idempotency_key, caller.id)


def preferred_seconds(headers: Sequence[str]) -> float:
    """Return the wait that the ``Prefer`` headers ask for, at most ``MAX_WAIT_SECONDS``, or 0."""
    for preference in _PREFERENCE.findall(",".join(headers)):
        if found := _WAIT.match(preference):
            # A preference is no demand: a longer wait is cut to the longest one.
            return min(float(found[2]), MAX_WAIT_SECONDS)
    return 0


Waiting = Annotated[Wait, Depends(_wait)]
