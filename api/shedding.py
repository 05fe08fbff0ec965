"""What is refused at once, because the same was refused a moment ago."""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import refusal
from shared.errors import QueueFullError

#: For so long a queue that was full is taken to be full.
MOMENT_SECONDS = 0.1


class Refusals:
    """The last refusal of each caller, for a moment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, QueueFullError]] = {}

    def note(self, caller_id: str, error: QueueFullError) -> None:
        """Remember that a queue or a share of it is full; of bytes, another job may need fewer."""
        if error.specific_code != "request_bytes_full":
            self._last[caller_id] = (self._clock() + MOMENT_SECONDS, error)

    def last(self, caller_id: str) -> QueueFullError | None:
        """Return what was in a caller's way a moment ago."""
        until, error = self._last.get(caller_id, (0.0, None))
        if error is not None and self._clock() >= until:
            del self._last[caller_id]
            return None
        return error


class Shedding:
    """Refuses what is posted to a path for a moment after its queue was full.

    Clients who send ten times what the workers can do have nine tenths refused. To read, check and
    refuse each in the ledger would make the front the next part that is too slow, for those too who
    only look at a job. A call with an idempotency key is always read: its job may be there already.
    """

    def __init__(self, app: ASGIApp, *, path: str, refusals: Refusals) -> None:
        self._app = app
        self._path = path
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, or repeat what its caller was told a moment ago."""
        app = self._app
        if scope.get("path") == self._path and "caller" in scope:
            error = self._refusals.last(scope["caller"].id)
            if error is not None and not _has_key(scope):
                app = refusal(error)
        await app(scope, receive, send)


def _has_key(scope: Scope) -> bool:
    return any(name == b"idempotency-key" for name, _ in scope["headers"])
