"""Why a submit is refused, in words, and when there may be room."""

import json

from shared.errors import InvalidInputError, LifecycleError, QueueFullError

#: Where nothing is known of how fast a queue drains; and the bounds of what is told to clients.
USUAL_SECONDS, LEAST_SECONDS, MOST_SECONDS = 5, 1, 60

_WORDS = {
    "queue": "queue {name!r} holds {present} of at most {most} jobs",
    "submitter": "{present} of at most {most} jobs of this API key wait already",
    "bytes": "the requests of the jobs that have not ended take {present} of at most {most} bytes",
}
_CODES = {
    "queue": QueueFullError.code,
    "submitter": "submitter_queue_full",
    "bytes": "request_bytes_full",
}


def refused(found: str) -> LifecycleError:
    """Return the error for what ``admission.lua`` found to be in the way (JSON)."""
    fields = json.loads(found)
    limit, asked, most, wait = (fields[name] for name in ("limit", "asked", "most", "wait"))
    detail = f"{_WORDS[limit].format(**fields)}, and {asked} more do not fit"
    if asked > most:
        return InvalidInputError(f"{detail}, now or ever", code="too_large")
    seconds = USUAL_SECONDS if wait < 0 else -(-wait // 1000)
    return QueueFullError(
        detail,
        code=_CODES[limit],
        retry_after_seconds=int(min(max(seconds, LEAST_SECONDS), MOST_SECONDS)),
    )
