"""What went wrong when: by this an end is judged, and recovery is measured."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.schedule import FaultKind


@dataclass
class Incident:
    """One fault that was carried out."""

    kind: FaultKind
    began: float
    ended: float | None = None
    #: Exchanges that failed, hints that were sent, and the like.
    hits: int = 0
    #: The jobs that the process held, with their fences, if a worker was hit.
    held: dict[str, int] = field(default_factory=dict)
    #: When each of them was claimed again, or had ended.
    resumed: dict[str, float] = field(default_factory=dict)
    #: When the process' kind did something again.
    recovered: float | None = None

    @property
    def place(self) -> str:
        """What was hit: the word after the fault's own."""
        return self.kind.value.split()[1]


class Incidents:
    """All of a run; written by the injector, read by everybody."""

    #: What a fault does to jobs may show this long after it has gone.
    ECHO_SECONDS = 20.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Incident] = []
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

    def hit(self, place: str, start: float, end: float) -> bool:
        """Return whether something at a place went wrong within a time."""
        return any(
            incident.place == place
            and incident.began <= end
            and (incident.ended is None or incident.ended + self.ECHO_SECONDS >= start)
            for incident in self.all()
        )
