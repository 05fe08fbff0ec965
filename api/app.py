"""Composition root of the front."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis
from fastapi import FastAPI

from api import errors
from api.callers import Callers
from api.circuit import connect_impatiently
from api.components import OllamaDependents, probes_of
from api.documented import KEY_ANSWERS, KEY_SCHEMES, STORE_ANSWERS, describe
from api.farewell import Farewell
from api.guard import Guard
from api.limits import BodyLimit
from api.metrics import Metrics
from api.observation import Observation
from api.routes import files, health, inference, jobs, lifecycle, metrics, registry
from api.services import Services
from api.shedding import Refusals, Shedding
from api.submission import Submission
from api.sweep import sweep_files
from shared.identity.rates import RateLimit
from shared.identity.store import KeyStore
from shared.lakefs.listing import RepositoryListing
from shared.ledger import EventReader, Ledger, Placement, Presence, TransitionEpoch
from shared.media.files import FileStore
from shared.ollama import OllamaServer
from shared.queue import InferenceQueues, Queue, celery_app
from shared.registry import ModelRegistry
from shared.settings import Settings
from shared.staging import StagingArea

DESCRIPTION = """
One service takes a model from where it is published to where it answers requests:
**download → lakeFS commit → MLflow version → stage → inference**.

Every submit answers with a **job**. Poll it, follow its events, or let the call wait (`?wait=30`).

Where API keys are in use, each call shows one: `Authorization: Bearer <key>` or `X-API-Key: <key>`.
Jobs and files are seen by the key that made them, and by admins.
"""


def create_app(settings: Settings) -> FastAPI:
    """Build the front; nothing is connected to before the first request."""
    client = connect_impatiently(settings.redis)
    services = build_services(settings, client)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(sweep_files(services.files))
        yield
        sweeping.cancel()
        await services.events.close()
        services.repositories.close()

    app = FastAPI(
        title="AI Model Lifecycle Platform",
        version="0.1.0",
        description=DESCRIPTION,
        lifespan=lifespan,
    )
    app.state.services = services
    errors.install(app)
    # Files are streamed to their storage, which has a limit of its own.
    app.add_middleware(BodyLimit, max_bytes=settings.api.max_body_bytes, exempt="/files")
    # Nor is what would only be refused read.
    app.add_middleware(Shedding, path="/inference/infer", refusals=services.refusals)
    # Strangers' bodies are not read.
    add_guard(app, settings, client)
    app.add_middleware(Farewell)
    # Added last, it comes first: it sees what the others refuse.
    app.add_middleware(Observation, metrics=services.metrics.http)
    answers = KEY_ANSWERS | STORE_ANSWERS
    for module in (lifecycle, registry, inference, files, jobs):
        app.include_router(module.router, dependencies=KEY_SCHEMES, responses=answers)
    app.include_router(metrics.router, dependencies=KEY_SCHEMES, responses=KEY_ANSWERS)
    app.include_router(health.router)
    describe(app)
    return app


def add_guard(app: FastAPI, settings: Settings, client: "redis.Redis") -> None:
    """Have every call looked at before the app sees it."""
    app.add_middleware(
        Guard,
        callers=Callers(KeyStore(client, settings.ledger), settings.api),
        rate=RateLimit(
            client,
            settings.ledger.prefix,
            per_second=settings.api.calls_per_second,
            burst=settings.api.calls_burst,
        ),
        allow_open=settings.api.allow_open,
    )


def build_services(settings: Settings, client: "redis.Redis") -> Services:
    """Construct what the routes work with."""
    events = EventReader(settings.redis, settings.ledger)
    celery = celery_app(settings, "front")
    ledger = Ledger(client, settings.ledger, Queue(celery).publish)
    repositories = RepositoryListing(settings.lakefs)
    ollama = OllamaServer(settings.ollama)
    presence = Presence(client, settings.ledger)
    registry = ModelRegistry(settings.mlflow, TransitionEpoch(client, settings.ledger))
    return Services(
        settings=settings,
        ledger=ledger,
        events=events,
        presence=presence,
        submission=Submission(ledger, events),
        refusals=Refusals(),
        placement=Placement(client, settings.ledger),
        inference_queues=InferenceQueues(presence),
        celery=celery,
        registry=registry,
        repositories=repositories,
        staging=StagingArea(settings.storage),
        files=FileStore(settings.media),
        ollama=ollama,
        probes=probes_of(settings, ledger, repositories, ollama),
        ollama_dependents=OllamaDependents(registry, ollama),
        metrics=Metrics(ledger, presence),
    )
