"""What a manager counts."""

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from shared.errors import Interruption

#: Latencies are those of the last so many requests that succeeded.
_RECENT = 1000


class InferenceStats:
    """Counts requests and their time; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[str] = Counter()
        self._in_flight = 0
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request by how it ends."""
        started = perf_counter()
        end = "failed"
        with self._lock:
            self._in_flight += 1
        try:
            yield
            end = "succeeded"
        except Interruption:
            end = "cancelled"
            raise
        finally:
            with self._lock:
                self._in_flight -= 1
                self._ended[end] += 1
                if end == "succeeded":
                    self._seconds.append(perf_counter() - started)

    def summary(self) -> dict[str, Any]:
        """Return the counts; interrupted requests are no part of the success rate."""
        with self._lock:
            ended, seconds, in_flight = Counter(self._ended), sorted(self._seconds), self._in_flight
        judged = ended["succeeded"] + ended["failed"]
        return {
            "requests": ended.total(),
            "in_flight": in_flight,
            "succeeded": ended["succeeded"],
            "failed": ended["failed"],
            "cancelled": ended["cancelled"],
            "success_rate": ended["succeeded"] / judged if judged else 1.0,
            "latency_seconds": {
                "mean": sum(seconds) / len(seconds) if seconds else 0.0,
                "p50": _quantile(seconds, 0.5),
                "p95": _quantile(seconds, 0.95),
                "max": seconds[-1] if seconds else 0.0,
            },
        }


def _quantile(ascending: list[float], share: float) -> float:
    """Return the value that ``share`` of the others do not exceed; 0 if there is none."""
    return ascending[min(int(len(ascending) * share), len(ascending) - 1)] if ascending else 0.0
