"""What went wrong when: by this an end is judged, and recovery is measured."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.schedule import FaultKind


@dataclass
class Incident:
    """One fault that was carried out."""

    kind: FaultKind
    began: float
    ended: float | None = None
    #: Exchanges that failed, entries that were added, and the like.
    hits: int = 0
    #: The jobs that the process held, with their fences, if a worker was hit.
    held: dict[str, int] = field(default_factory=dict)
    #: When each of them was claimed again, or had ended.
    resumed: dict[str, float] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What was hit: the word after the fault's own."""
        return self.kind.value.split()[1]

    def overlap(self, since: float, until: float) -> float:
        """Return for how many seconds of a time it lasted."""
        ended = until if self.ended is None else self.ended
        return max(min(ended, until) - max(self.began, since), 0.0)


#: With ``appendfsync everysec`` Redis answers before it has written, for so long at most, while the
#: disk is so slow that its last fsync has not ended (`flushAppendOnlyFile` in its aof.c).
POSTPONED_SECONDS = 2.0


@dataclass(frozen=True)
class Loss:
    """A time in which Redis may have forgotten what it was told."""

    since: float
    until: float
    cause: FaultKind

    def meets(self, since: float, until: float) -> bool:
        """Return whether any of a time lies within it."""
        return since <= self.until and until >= self.since


class Incidents:
    """All of a run; written by the injector, read by everybody."""

    #: What a fault does to jobs may show this long after it has gone.
    ECHO_SECONDS = 20.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Incident] = []
        #: What failovers, and kills on a slow disk, may have lost.
        self.losses: list[Loss] = []
        #: How often a worker was killed, or slept, while it ran a job.
        self.struck: Counter[str] = Counter()

    def begin(self, kind: FaultKind, held: dict[str, int] | None = None) -> Incident:
        """Note that something goes wrong from now on."""
        incident = Incident(kind, time.time(), held=held or {})
        with self._lock:
            self._all.append(incident)
            self.struck.update(incident.held.keys())
        return incident

    def all(self) -> list[Incident]:
        """Return all so far."""
        with self._lock:
            return list(self._all)

    def of(self, *kinds: FaultKind) -> list[Incident]:
        """Return those of some kinds."""
        return [incident for incident in self.all() if incident.kind in kinds]

    def hit(self, place: str, start: float, end: float) -> bool:
        """Return whether something at a place went wrong within a time."""
        return any(
            incident.place == place
            and incident.began <= end
            and (incident.ended is None or incident.ended + self.ECHO_SECONDS >= start)
            for incident in self.all()
        )

    def lost(self, since: float, until: float) -> FaultKind | None:
        """Return why Redis may have forgotten what it was told in a time, if it may."""
        return next((loss.cause for loss in self.losses if loss.meets(since, until)), None)

    def worker_losses(
        self, deaths: Iterable[float], lease_seconds: float, since: float, until: float
    ) -> int:
        """Return how often a job may have lost its worker within a time.

        A worker ended, or slept for so long that its leases ran out; or Redis forgot the end of a
        run, whose lease runs out as nobody renews it any longer.
        """
        sleeps = [
            incident.ended
            for incident in self.of(FaultKind.STOP_CPU, FaultKind.STOP_GPU)
            if incident.ended and incident.ended - incident.began > lease_seconds - 1
        ]
        moments = [*deaths, *sleeps, *(loss.until for loss in self.losses)]
        return sum(since - 1 <= moment <= until + 1 for moment in moments)
