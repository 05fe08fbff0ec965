"""Whether this worker's consumer still listens to the broker.

A Celery worker may live on after a lost connection and consume nothing, while its process, its
threads and its connection to the ledger are all well. The sign of life here is kombu's own: with a
free slot it asks Redis for messages with a BRPOP that ends within a second, and notes when.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: At most between two looks of a process that was not asleep itself.
_LOOK_SECONDS = 2.0
#: Silence for less long than this is none.
_QUIET_SECONDS = 5.0


class Hearing:
    """Counts the seconds in which the consumer could have asked for a message and did not."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._occupied = 0
        self._lock = threading.Lock()
        self._consumer: Any = None
        self._polled_at = 0.0
        self._silent_seconds = 0.0
        self._looked_at = time.monotonic()

    @property
    def consuming(self) -> bool:
        """Whether the consumer asked for messages lately, as far as it could."""
        return self._silent_seconds < _QUIET_SECONDS

    def attach(self, consumer: object) -> None:
        """Listen to Celery's consumer, which stays the same when its connection is made anew."""
        self._consumer = consumer

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Count a slot as taken for the length of a block: without a free one nobody asks.

        Counted here and not asked of Celery, which may have lost one.
        """
        with self._lock:
            self._occupied += 1
        try:
            yield
        finally:
            with self._lock:
                self._occupied -= 1

    def look(self) -> float:
        """Return for how long the consumer has been silent; to be called every second or so."""
        now = time.monotonic()
        # The time in which this whole process slept says nothing about its consumer.
        elapsed = min(now - self._looked_at, _LOOK_SECONDS)
        polled_at = self._last_poll()
        heard = self._occupied >= self._slots or polled_at > self._polled_at
        self._looked_at, self._polled_at = now, polled_at
        self._silent_seconds = 0.0 if heard else self._silent_seconds + elapsed
        return self._silent_seconds

    def excuse(self) -> None:
        """Begin to count anew: it was not the consumer's fault."""
        self._silent_seconds = 0.0

    def _last_poll(self) -> float:
        """Return when kombu last sent a BRPOP; a test holds kombu to it."""
        task_consumer = getattr(self._consumer, "task_consumer", None)
        channel = getattr(task_consumer, "channel", None)
        return getattr(channel, "_brpop_sent_at", None) or 0.0
