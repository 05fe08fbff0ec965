"""What a part of the stack is, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from embedded.health import Probe


class Component(BaseModel):
    """A part of the stack as `status` sees it: ours or from outside."""

    model_config = ConfigDict(frozen=True)

    name: str
    #: As people call it.
    title: str
    #: Where it answers; for a worker, the name that Celery and Flower know it by.
    address: str
    probe: Probe
    #: None for a part from outside.
    pid: int | None = None
    #: Of interest to whoever looks at the addresses.
    note: str = ""
    #: The directory that it keeps its data in, if that is of interest.
    data: str = ""


@dataclass(frozen=True)
class Service:
    """A part that the stack starts."""

    component: Component
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    #: Started when these are healthy.
    needs: tuple[str, ...] = ()
    #: The stack stops from the highest layer to the lowest, the services of one layer at once.
    layer: int = 0
    #: Between SIGTERM and SIGKILL.
    grace_seconds: float = 10
    #: Once healthy, restarted when silent for this long; None: as long as the supervisor waits.
    hung_seconds: float | None = None
    #: While one of these is away, the service's own silence proves nothing.
    leans_on: tuple[Probe, ...] = ()

    @property
    def name(self) -> str:
        """The name of its log, and in messages."""
        return self.component.name

    def guilty(self) -> bool:
        """Return whether silence is the service's own fault."""
        return all(probe.healthy() for probe in self.leans_on)


class Phase(StrEnum):
    """Where a service is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    DOWN = "down"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Change:
    """A service has entered a phase."""

    service: Service
    phase: Phase
    pid: int | None = None
    #: Why, where that is not plain: how it died, what it waits for.
    detail: str = ""
    #: How long the phase before this one took.
    seconds: float = 0
