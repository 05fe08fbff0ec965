"""What the routes work with; made once, by the composition root."""

from dataclasses import dataclass
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request
from redis.asyncio import Redis

from api.components import OllamaDependents, Probe
from api.metrics import Metrics
from api.servable import ServableModels
from api.shedding import Refusals
from api.submission import Submission
from shared.lakefs.listing import RepositoryListing
from shared.ledger import AsyncLedger, Ends, EventReader, Placement, Presence
from shared.media.files import FileStore
from shared.ollama import OllamaServer
from shared.registry import ModelRegistry
from shared.settings import Settings
from shared.staging import StagingArea


@dataclass(frozen=True)
class Services:
    """The front's collaborators."""

    settings: Settings
    redis: Redis
    ledger: AsyncLedger
    ends: Ends
    events: EventReader
    presence: Presence
    submission: Submission
    refusals: Refusals
    placement: Placement
    models: ServableModels
    celery: Celery
    registry: ModelRegistry
    repositories: RepositoryListing
    staging: StagingArea
    files: FileStore
    ollama: OllamaServer
    probes: dict[str, Probe]
    ollama_dependents: OllamaDependents
    metrics: Metrics

    async def close(self) -> None:
        """Close what holds connections open."""
        await self.ends.close()
        await self.events.close()
        await self.redis.aclose()
        self.repositories.close()


async def _services(request: Request) -> Services:
    # Asynchronous, as a function that is not would be called in a thread of its own.
    services = request.app.state.services
    assert isinstance(services, Services)  # noqa: S101 - the app keeps it untyped
    return services


Provided = Annotated[Services, Depends(_services)]
