"""What every request has at hand."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from fastapi import Depends
from starlette.requests import Request

from embedded.lakefs import repositories
from embedded.lakefs.auth import Credentials
from embedded.lakefs.blobs import BlobStore
from embedded.lakefs.database import Database, Transaction
from embedded.lakefs.errors import InvalidError, UnauthorizedError
from embedded.lakefs.installation import Installation
from embedded.lakefs.model import Place, Repository
from embedded.lakefs.presigning import Signer
from embedded.lakefs.sweep import sweep


@dataclass(frozen=True, slots=True)
class Server:
    """The stores of one running server, and its settings."""

    database: Database
    blobs: BlobStore
    installation: Installation
    #: Whether clients may move bytes over signed links.
    presign: bool
    #: Unix seconds.
    started: int

    @classmethod
    def open(cls, data: Path, credentials: Credentials | None, *, presign: bool) -> Self:
        """Open the files in `data` and clear away what the last run left behind."""
        data.mkdir(parents=True, exist_ok=True)
        database = Database(data / "catalog.sqlite3")
        server = cls(
            database=database,
            blobs=BlobStore(data),
            installation=Installation(database, credentials),
            presign=presign,
            started=int(time.time()),
        )
        sweep(server.database, server.blobs)
        return server

    @property
    def credentials(self) -> Credentials:
        """The key pair that lets in; before the setup nothing does."""
        found = self.installation.credentials
        if found is None:
            raise UnauthorizedError
        return found

    @property
    def signer(self) -> Signer:
        """What signs links, with a key that follows from the user's secret."""
        return Signer(self.credentials.secret_access_key)

    @contextmanager
    def reading(self, repository: str) -> Iterator[tuple[Transaction, Repository]]:
        """Open a transaction on a repository."""
        with self.database.transaction() as tx:
            yield tx, repositories.get(tx, repository)

    @contextmanager
    def writing(
        self, repository: str, *, force: bool = False
    ) -> Iterator[tuple[Transaction, Repository]]:
        """Open a transaction on a repository that may be written to."""
        with self.database.transaction() as tx:
            yield tx, repositories.get_for_writing(tx, repository, force=force)

    def require_presign(self) -> None:
        """Refuse what needs signed links where they are not offered."""
        if not self.presign:
            raise InvalidError("local adapter presigned URL: operation not supported")


# Dependencies are `async` though they wait for nothing: FastAPI runs others in threads, which
# costs more than they do.


async def current_server(request: Request) -> Server:
    """Return the server that answers `request`."""
    server: Server = request.app.state.server
    return server


CurrentServer = Annotated[Server, Depends(current_server)]


async def authenticate(request: Request, server: CurrentServer) -> None:
    """Let only requests with the right credentials pass."""
    server.credentials.check(request)


async def object_place(repository: str, branch: str, path: str) -> Place:
    """Return the place that a request's path and query name."""
    return Place(repository, branch, path)


ObjectPlace = Annotated[Place, Depends(object_place)]
