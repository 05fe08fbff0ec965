"""What the routes work with; made once, by the composition root."""

from dataclasses import dataclass
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request

from api.components import OllamaDependents, Probe
from api.metrics import Metrics
from api.shedding import Refusals
from api.submission import Submission
from shared.lakefs.listing import RepositoryListing
from shared.ledger import EventReader, Ledger, Placement, Presence
from shared.media.files import FileStore
from shared.ollama import OllamaServer
from shared.queue import InferenceQueues
from shared.registry import ModelRegistry
from shared.settings import Settings
from shared.staging import StagingArea


@dataclass(frozen=True)
class Services:
    """The front's collaborators."""

    settings: Settings
    ledger: Ledger
    events: EventReader
    presence: Presence
    submission: Submission
    refusals: Refusals
    placement: Placement
    inference_queues: InferenceQueues
    celery: Celery
    registry: ModelRegistry
    repositories: RepositoryListing
    staging: StagingArea
    files: FileStore
    ollama: OllamaServer
    probes: dict[str, Probe]
    ollama_dependents: OllamaDependents
    metrics: Metrics


async def _services(request: Request) -> Services:
    # Asynchronous, as a function that is not would be called in a thread of its own.
    services = request.app.state.services
    assert isinstance(services, Services)  # noqa: S101 - the app keeps it untyped
    return services


Provided = Annotated[Services, Depends(_services)]
