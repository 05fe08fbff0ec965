"""Composition root of the front."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Self

import redis
from fastapi import FastAPI
from redis.asyncio import Redis as AsyncRedis

from api import errors
from api.callers import Callers
from api.circuit import connect_async_with_breaker, connect_with_breaker
from api.components import OllamaDependents, probes_of
from api.direct import DirectInference
from api.documented import KEY_ANSWERS, KEY_SCHEMES, STORE_ANSWERS, describe
from api.farewell import Farewell
from api.guard import Guard
from api.limits import BodyLimit
from api.metrics import Metrics
from api.observation import Observation
from api.routes import files, health, inference, jobs, lifecycle, metrics, registry
from api.servable import ServableModels
from api.services import Services
from api.shedding import Refusals, Shedding
from api.submission import Submission
from api.sweep import sweep_files
from shared.identity.rates import RateLimit
from shared.identity.store import KeyStore
from shared.lakefs.listing import RepositoryListing
from shared.ledger import (
    AsyncLedger,
    Ends,
    EventReader,
    Ledger,
    Placement,
    Presence,
    RecentEpoch,
    TransitionEpoch,
    connect_async,
)
from shared.media.files import FileStore
from shared.ollama import OllamaServer
from shared.queue import InferenceQueues, celery_app
from shared.registry import ModelRegistry
from shared.settings import RedisSettings, Settings
from shared.staging import StagingArea

DESCRIPTION = """
One service takes a model from where it is published to where it answers requests:
**download → lakeFS commit → MLflow version → stage → inference**.

Every submit answers with a **job**. Poll it, follow its events, or let the call wait (`?wait=30`).

Where API keys are in use, each call shows one: `Authorization: Bearer <key>` or `X-API-Key: <key>`.
Jobs and files are seen by the key that made them, and by admins.
"""


def create_app(settings: Settings) -> FastAPI:
    """Build the API; nothing is connected to before the first request."""
    connections = Connections.of(settings.redis)
    services = build_services(settings, connections)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(sweep_files(services.files))
        yield
        sweeping.cancel()
        await services.close()

    app = FastAPI(
        title="AI Model Lifecycle Platform",
        version="0.1.0",
        description=DESCRIPTION,
        lifespan=lifespan,
    )
    app.state.services = services
    errors.install(app)
    app.add_middleware(
        DirectInference, path="/inference/infer", services=services, infer=inference.infer
    )
    # Files are streamed to their storage, which has a limit of its own.
    app.add_middleware(BodyLimit, max_bytes=settings.api.max_body_bytes, exempt="/files")
    # Nor is what would only be refused read.
    app.add_middleware(Shedding, path="/inference/infer", refusals=services.refusals)
    # Strangers' bodies are not read.
    add_guard(app, settings, connections)
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


class Connections(NamedTuple):
    """Clients of Redis, for threads and for the event loop."""

    blocking: "redis.Redis"
    asynchronous: AsyncRedis

    @classmethod
    def of(cls, settings: RedisSettings) -> Self:
        """Return clients that connect at their first use."""
        return cls(connect_with_breaker(settings), connect_async_with_breaker(settings))


def add_guard(app: FastAPI, settings: Settings, connections: Connections) -> None:
    """Have every call looked at before the app sees it."""
    app.add_middleware(
        Guard,
        callers=Callers(KeyStore(connections.blocking, settings.ledger), settings.api),
        rate=RateLimit(
            connections.asynchronous,
            settings.ledger.prefix,
            per_second=settings.api.calls_per_second,
            burst=settings.api.calls_burst,
        ),
        allow_open=settings.api.allow_open,
    )


def build_services(settings: Settings, connections: Connections) -> Services:
    """Construct what the routes work with."""
    client, async_client = connections
    ledger = AsyncLedger(async_client, settings.ledger)
    # It has connections of its own: the subscription's waits for as long as nothing ends.
    ends = Ends(connect_async(settings.redis), ledger, settings.ledger)
    blocking_ledger = Ledger(client, settings.ledger)
    repositories = RepositoryListing(settings.lakefs)
    ollama = OllamaServer(settings.ollama)
    presence = Presence(client, settings.ledger)
    registry = ModelRegistry(settings.mlflow, TransitionEpoch(client, settings.ledger))
    files = FileStore(settings.media)
    models = ServableModels(
        registry,
        RecentEpoch(async_client, settings.ledger),
        presence,
        InferenceQueues(presence),
        files,
    )
    return Services(
        settings=settings,
        redis=async_client,
        ledger=ledger,
        ends=ends,
        events=EventReader(settings.redis, settings.ledger),
        presence=presence,
        submission=Submission(ledger, ends),
        refusals=Refusals(),
        placement=Placement(client, settings.ledger),
        models=models,
        celery=celery_app(settings, "front"),
        registry=registry,
        repositories=repositories,
        staging=StagingArea(settings.storage),
        files=files,
        ollama=ollama,
        probes=probes_of(settings, blocking_ledger, repositories, ollama),
        ollama_dependents=OllamaDependents(registry, ollama),
        metrics=Metrics(blocking_ledger, presence),
    )
