"""Resolutions of names to versions, remembered for seconds and never beyond a transition."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from shared.models import ModelVersion

Key = tuple[str, str | None, str | None]


class Epoch(Protocol):
    """Tells whether there was a transition since; ``shared.ledger.TransitionEpoch`` for all."""

    def now(self) -> int:
        """Return a number that is another after each transition."""

    def advance(self) -> None:
        """Say that there was a transition."""


class LocalEpoch:
    """Knows of this process' own transitions."""

    def __init__(self) -> None:
        self._number = 0

    def now(self) -> int:
        """Return the number of transitions so far."""
        return self._number

    def advance(self) -> None:
        """Count one more."""
        self._number += 1


class Resolutions:
    """What name, version and stage stood for a moment ago; safe to use from several threads."""

    def __init__(
        self, seconds: float, epoch: Epoch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._epoch = epoch
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[float, int, ModelVersion]] = {}

    def get(self, key: Key, resolve: Callable[[], ModelVersion]) -> ModelVersion:
        """Return what is remembered, else what ``resolve`` returns; errors are not remembered."""
        # Before asking: what was asked before a transition must not be remembered after it.
        epoch = self._epoch.now()
        with self._lock:
            known = self._known.get(key)
        if known is not None and self._clock() < known[0] and epoch == known[1]:
            return known[2]
        version = resolve()
        with self._lock:
            self._known[key] = (self._clock() + self._seconds, epoch, version)
        return version

    def forget(self) -> None:
        """Forget everything; transitions are rare."""
        with self._lock:
            self._known.clear()
        self._epoch.advance()
