"""How long the stack took to go on after each kill."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.ledger import connect
from tests.chaos.incidents import Incident
from tests.chaos.stack import ChaosStack

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


def recoveries(
    incidents: Iterable[Incident], stack: ChaosStack, jobs: dict[str, Json]
) -> list[Recovery]:
    """Return the recovery from kills, by what was killed."""
    claims = _claims(stack, jobs)
    claims["redis"] = sorted(claims["cpu"] + claims["gpu"])
    claims["api"] = sorted(
        datetime.fromisoformat(job["created_at"]).timestamp() for job in jobs.values()
    )
    found = {place: Recovery(place, [], []) for place in ("cpu", "gpu", "api", "redis")}
    for incident in incidents:
        if not incident.kind.startswith("kill"):
            continue
        recovery = found[incident.place]
        following = next((at for at in claims[incident.place] if at > incident.began), None)
        if following is not None:
            recovery.service.append(following - incident.began)
        recovery.jobs.extend(at - incident.began for at in incident.resumed.values())
    return list(found.values())


def _claims(stack: ChaosStack, jobs: dict[str, Json]) -> dict[str, list[float]]:
    """Return when jobs were claimed, by the kind of worker, on Redis' clock, which is ours."""
    client = connect(stack.redis_settings)
    claims: dict[str, list[float]] = {"cpu": [], "gpu": []}
    for job_id, job in jobs.items():
        if job["kind"] == "batch_download":
            continue
        entries: Any = client.xrange(f"{stack.ledger_settings.prefix}:events:{job_id}")
        claims[_WORKER.get(job["kind"], "cpu")] += [
            int(event_id.partition("-")[0]) / 1000
            for event_id, fields in entries
            if fields["event"] == "state" and '"running"' in fields["data"]
        ]
    client.close()
    return {place: sorted(times) for place, times in claims.items()}
