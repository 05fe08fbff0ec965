"""What the Ollama server has in its memory, as ``/api/ps`` tells it."""

import math
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from shared.cancellation import CancelToken
from shared.errors import LifecycleError
from shared.ollama import LoadedOllamaModel
from workers.inference.waiting import wait_until

log = structlog.get_logger()

#: What the server told is used for this long.
FRESH_SECONDS = 1.0
#: If the server is slow to tell, what it told before counts for this long.
STALE_SECONDS = 5.0
#: How long a request waits for the server, and how long a report does: a heartbeat waits for it.
REQUEST_SECONDS, REPORT_SECONDS = 2.0, 0.2


class OllamaMemory:
    """Asks at most once a second, on a thread of its own, which a server that hangs may hold."""

    def __init__(self, ask: Callable[[], Sequence[LoadedOllamaModel]]) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._told: Sequence[LoadedOllamaModel] | None = None
        self._told_at = -math.inf
        self._is_fresh = False
        self._asking = False

    def loaded(self, token: CancelToken | None = None) -> Sequence[LoadedOllamaModel] | None:
        """Return the models in the server's memory; None if it does not tell.

        With a token it is a request that asks, which can wait longer.
        """
        with self._changed:
            # Of a report's models, only the first one waits for a server that is slow.
            wait_seconds = 0.0 if self._asking else REPORT_SECONDS
            if token is not None:
                wait_seconds = REQUEST_SECONDS
            if not self._fresh() and not self._asking:
                self._asking = True
                threading.Thread(target=self._refresh, name="ollama-ps", daemon=True).start()
            wait_until(self._changed, self._fresh, token or CancelToken(), wait_seconds)
            is_stale = time.monotonic() - self._told_at > STALE_SECONDS
            return None if is_stale else self._told

    def forget(self) -> None:
        """Ask again the next time: what was told is about to change."""
        with self._changed:
            self._is_fresh = False

    def _fresh(self) -> bool:
        return self._is_fresh and time.monotonic() - self._told_at <= FRESH_SECONDS

    def _refresh(self) -> None:
        told: Sequence[LoadedOllamaModel] | None = None
        try:
            told = self._ask()
        except LifecycleError as error:
            if self._told is not None:
                log.warning("ollama_memory_unknown", reason=error.detail)
        finally:
            with self._changed:
                self._told, self._told_at = told, time.monotonic()
                self._is_fresh, self._asking = True, False
                self._changed.notify_all()
