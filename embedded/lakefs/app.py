"""Builds the application from a data folder and, unless it is to be set up, a key pair."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI

from embedded.lakefs import errors
from embedded.lakefs.auth import Credentials
from embedded.lakefs.routes import (
    branches,
    commits,
    config,
    health,
    listings,
    multipart,
    objects,
    presigned,
    repositories,
    setup,
    staging,
    tags,
)
from embedded.lakefs.server import Server, authenticate

API = "/api/v1"


def create_app(data: Path, credentials: Credentials | None, *, presign: bool = False) -> FastAPI:
    """Return a server over the files in `data`, which no other server may use."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = app.state.server = Server.open(data, credentials, presign=presign)
        yield
        server.database.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    errors.install(app)
    # The router looks from the top: what is called for every object comes first.
    for noun in (
        objects,
        staging,
        listings,
        multipart,
        branches,
        commits,
        tags,
        repositories,
        config,
    ):
        app.include_router(noun.router, prefix=API, dependencies=[Depends(authenticate)])
    app.include_router(presigned.router)
    app.include_router(health.root)
    app.include_router(health.api, prefix=API)
    app.include_router(setup.router, prefix=API)
    return app
