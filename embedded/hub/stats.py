"""What was asked and what was sent, for tests that prove that nothing was fetched twice."""

from collections import Counter, deque
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

_RANGES_KEPT = 1000


@dataclass(slots=True)
class FileStats:
    """Transfers of one file's body."""

    transfers: int = 0
    bytes_sent: int = 0
    #: The Range header of each transfer in order, None where there was none; the newest of them.
    ranges: deque[str | None] = field(default_factory=lambda: deque(maxlen=_RANGES_KEPT))


class Stats:
    """Counters since the start or the last reset; a test reads them from another thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: Counter[str] = Counter()
        self._files: dict[str, FileStats] = {}

    def count_request(self, method: str, path: str) -> None:
        """Count one request of any kind."""
        with self._lock:
            self._requests[f"{method} {path}"] += 1

    def begin_transfer(self, file: str, asked_range: str | None) -> None:
        """Count the beginning of a body; `file` is the model id and the path in it."""
        with self._lock:
            stats = self._files.setdefault(file, FileStats())
            stats.transfers += 1
            stats.ranges.append(asked_range)

    def add_sent(self, file: str, size_bytes: int) -> None:
        """Count bytes of a body that were handed to the socket."""
        with self._lock:
            self._files.setdefault(file, FileStats()).bytes_sent += size_bytes

    def reset(self) -> None:
        """Start again from zero."""
        with self._lock:
            self._requests.clear()
            self._files.clear()

    def snapshot(self) -> dict[str, Any]:
        """Return the counters as JSON."""
        with self._lock:
            return {
                "requests": self._requests.total(),
                "bytes_sent": sum(stats.bytes_sent for stats in self._files.values()),
                "paths": dict(self._requests),
                "files": {
                    name: {
                        "transfers": stats.transfers,
                        "bytes_sent": stats.bytes_sent,
                        "ranges": list(stats.ranges),
                    }
                    for name, stats in self._files.items()
                },
            }
