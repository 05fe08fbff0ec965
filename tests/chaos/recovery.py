"""How long the stack took to go on after each kill."""

import statistics
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.chaos.clock import SteppedClock
from tests.chaos.driver import made_at
from tests.chaos.incidents import Incidents
from tests.chaos.schedule import FaultKind

Json = dict[str, Any]

#: The kinds of jobs by the kind of worker.
_WORKER = {"infer": "gpu"}


@dataclass(frozen=True)
class Recovery:
    """Seconds from kills of one kind of process."""

    place: str
    #: To the next claim by a worker of the kind; of the front, to the next job that it accepts; of
    #: Redis, to the next claim of all.
    service: list[float]
    #: To the next claim, or the end, of each job that the killed worker ran.
    jobs: list[float]

    @property
    def worst(self) -> float:
        """The longest time without service."""
        return max(self.service, default=0.0)

    @property
    def median(self) -> float:
        """The usual time without service."""
        return statistics.median(self.service) if self.service else 0.0


def recoveries(incidents: Incidents, clock: SteppedClock, jobs: dict[str, Json]) -> list[Recovery]:
    """Return the recovery from kills, by what was killed."""
    claims = _claims(clock, jobs)
    claims["redis"] = sorted(claims["cpu"] + claims["gpu"])
    claims["api"] = sorted(map(made_at, jobs))
    found = {place: Recovery(place, [], []) for place in ("cpu", "gpu", "api", "redis")}
    for incident in incidents.all():
        if not incident.kind.startswith("kill"):
            continue
        recovery, began = found[incident.place], incident.began
        following = next((at for at in claims[incident.place] if at > began), None)
        if following is not None:
            recovery.service.append(following - began - _stopped(incidents, began, following))
        recovery.jobs.extend(at - began for at in incident.resumed.values())
    return list(found.values())


def _claims(clock: SteppedClock, jobs: dict[str, Json]) -> dict[str, list[float]]:
    """Return when jobs were first claimed, by the kind of worker."""
    claims: dict[str, list[float]] = {"cpu": [], "gpu": []}
    for job_id, job in jobs.items():
        if job["kind"] == "batch_download" or not job["started_at"]:
            continue
        started = datetime.fromisoformat(job["started_at"]).timestamp()
        claims[_WORKER.get(job["kind"], "cpu")].append(clock.to_own(started, made_at(job_id)))
    return {place: sorted(times) for place, times in claims.items()}


def _stopped(incidents: Incidents, since: float, until: float) -> float:
    """Return for how long of a time Redis stood still by another fault."""
    stops = incidents.of(FaultKind.STOP_REDIS, FaultKind.FREEZE_REDIS)
    return sum(each.overlap(since, until) for each in stops)
