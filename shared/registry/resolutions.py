"""Resolutions of names to versions, remembered for seconds and never beyond a transition."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from shared.errors import UnavailableError
from shared.models import ModelVersion

#: For so long MLflow is taken to be away after it was.
AWAY_SECONDS = 1.0

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
        #: Until when it is not worth to ask, and why.
        self._away: tuple[float, UnavailableError] | None = None
        #: What is being asked, by the question and its epoch.
        self._asked: dict[tuple[Key, int], Future[ModelVersion]] = {}

    def remembered(self, key: Key, epoch: int) -> ModelVersion | None:
        """Return what is remembered, without asking anybody; None if that is to be asked."""
        known = self._known.get(key)
        fresh = known is not None and self._clock() < known[0] and epoch == known[1]
        return known[2] if known is not None and fresh else None

    def get(
        self, key: Key, resolve: Callable[[], ModelVersion], epoch: int | None = None
    ) -> ModelVersion:
        """Return what is remembered, else what ``resolve`` returns.

        Of many who ask the same at once one resolves: else each time that an answer has grown old,
        all that is on its way would fall upon MLflow. Of errors, only that MLflow is away is
        remembered, and for a moment: else each would wait for its own time-out.
        """
        if not self._seconds:
            return resolve()
        # Before asking: what was asked before a transition must not be remembered after it.
        epoch = self._epoch.now() if epoch is None else epoch
        with self._lock:
            known = self._known.get(key)
            if known is not None and self._clock() < known[0] and epoch == known[1]:
                return known[2]
            if self._away is not None and self._clock() < self._away[0]:
                raise self._away[1].with_traceback(None)
            asked = self._asked.get((key, epoch))
            if asked is None:
                answer = self._asked[key, epoch] = Future[ModelVersion]()
        if asked is None:
            return self._ask(key, epoch, resolve, answer)
        error = asked.exception()
        if error is None or isinstance(error, UnavailableError):
            return asked.result()
        # Another's error is not mine: what it missed may be there by now.
        return resolve()

    def _ask(
        self,
        key: Key,
        epoch: int,
        resolve: Callable[[], ModelVersion],
        answer: "Future[ModelVersion]",
    ) -> ModelVersion:
        try:
            version = resolve()
        except BaseException as error:
            if isinstance(error, UnavailableError):
                self._away = (self._clock() + AWAY_SECONDS, error)
            self._close(key, epoch)
            answer.set_exception(error)
            raise
        self._close(key, epoch, version)
        answer.set_result(version)
        return version

    def _close(self, key: Key, epoch: int, version: ModelVersion | None = None) -> None:
        with self._lock:
            del self._asked[key, epoch]
            if version is not None:
                self._known[key] = (self._clock() + self._seconds, epoch, version)

    def forget(self) -> None:
        """Forget everything; transitions are rare."""
        with self._lock:
            self._known.clear()
        self._epoch.advance()
