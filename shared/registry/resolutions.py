"""Resolutions of names to versions, remembered for seconds."""

import threading
import time
from collections.abc import Callable

from shared.models import ModelVersion

Key = tuple[str, str | None, str | None]


class Resolutions:
    """What name, version and stage stood for a moment ago; safe to use from several threads."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[float, ModelVersion]] = {}
        self._forgotten = 0

    def get(self, key: Key, resolve: Callable[[], ModelVersion]) -> ModelVersion:
        """Return what is remembered, else what ``resolve`` returns; errors are not remembered."""
        with self._lock:
            until, version = self._known.get(key, (0.0, None))
            if version is not None and self._clock() < until:
                return version
            forgotten = self._forgotten
        version = resolve()
        with self._lock:
            # What was asked before a transition must not be remembered after it.
            if forgotten == self._forgotten:
                self._known[key] = (self._clock() + self._seconds, version)
        return version

    def forget(self) -> None:
        """Forget everything; transitions are rare."""
        with self._lock:
            self._known.clear()
            self._forgotten += 1
