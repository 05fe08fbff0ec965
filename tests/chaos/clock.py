"""The clock of the stack's Redis, which a run steps forward and backward.

The ledger reads time only with ``TIME`` inside its script, and Redis expires keys by the same
clock. So the clock is stepped where Redis reads it: libfaketime, preloaded into the redis-server
processes and no others, adds an offset to ``gettimeofday`` and ``clock_gettime(CLOCK_REALTIME)``
and reads that offset from a file at each call. The monotonic clock, by which Redis' event loop
sleeps, stays as it is. A step of a host's clock by NTP, or by a virtual machine that is resumed,
looks the same.
"""

import time
from importlib.util import find_spec
from pathlib import Path

import redis

#: Clocks that do not step differ by less than this, on a busy machine too.
_STEP_SECONDS = 1.0
#: Steps so small that nothing is done about them.
_TRIAL_SECONDS = 5.0


def library() -> Path | None:
    """Return libfaketime, as the package of that name brings it; None where it is not installed."""
    # Not imported: the module is made for stepping the clock of the process that imports it.
    spec = find_spec("libfaketime")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"


class SteppedClock:
    """An offset in a file, and what it was before."""

    def __init__(self, file: Path) -> None:
        self._file = file
        #: When each offset was set, on the clock of this process, and the offset.
        self._offsets: list[tuple[float, float]] = []
        self.step(0)

    @property
    def offset(self) -> float:
        """By how much Redis' clock is ahead of that of this process, in seconds."""
        return self._offsets[-1][1] if self._offsets else 0.0

    def env(self) -> dict[str, str]:
        """Return the environment of a process that has this clock."""
        found = library()
        if found is None:
            return {}
        return {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: float) -> None:
        """Move the clock on, or back."""
        offset = self.offset + seconds
        # Replaced and not rewritten: Redis must never read half of it.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset:+.3f}\n")
        fresh.replace(self._file)
        self._offsets.append((time.time(), offset))

    def can_step(self, client: "redis.Redis") -> bool:
        """Step the clock there and back, and return whether a Redis followed."""
        self.step(_TRIAL_SECONDS)
        seconds, _ = client.time()
        self.step(-_TRIAL_SECONDS)
        return bool(abs(seconds - time.time() - _TRIAL_SECONDS) < _TRIAL_SECONDS / 2)

    def to_own(self, moment: float, after: float) -> float:
        """Return when it was here that Redis' clock showed a moment, which was ``after`` a time.

        What a clock that steps back shows twice is taken for the first of both.
        """
        ends = [began for began, _ in self._offsets[1:]]
        for (began, offset), end in zip(self._offsets, [*ends, float("inf")], strict=True):
            own = moment - offset
            if max(began, after) - _STEP_SECONDS <= own <= end + _STEP_SECONDS:
                return own
        return moment - self.offset
