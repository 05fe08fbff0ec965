"""`/repositories`: create, list, get, delete, and their metadata."""

import time

from fastapi import APIRouter
from starlette.responses import Response

from embedded.lakefs import repositories, views
from embedded.lakefs.bodies import (
    RepositoryCreation,
    RepositoryMetadataKeys,
    RepositoryMetadataSet,
)
from embedded.lakefs.errors import UnsupportedError
from embedded.lakefs.model import Repository
from embedded.lakefs.paging import PagingQuery, by_key, cut
from embedded.lakefs.server import CurrentServer
from embedded.lakefs.views import Json

router = APIRouter(prefix="/repositories")


@router.get("")
def list_repositories(server: CurrentServer, paging: PagingQuery, search: str = "") -> Json:
    """List repositories by name."""
    with server.database.transaction() as tx:
        found = {item.id: item for item in repositories.every(tx, search)}
    return cut(by_key(found), paging).view(lambda _, item: views.repository(item))


@router.post("", status_code=201)
def create_repository(server: CurrentServer, body: RepositoryCreation) -> Json:
    """Create a repository with its default branch."""
    if body.sample_data:
        raise UnsupportedError("sample data is not supported")
    repository = Repository(
        id=body.name,
        storage_namespace=body.storage_namespace,
        default_branch=body.default_branch,
        created=int(time.time()),
        read_only=body.read_only,
        metadata={},
    )
    with server.database.transaction() as tx:
        return views.repository(repositories.create(tx, repository, body.storage_id))


@router.get("/{repository}")
def get_repository(server: CurrentServer, repository: str) -> Json:
    """Return one repository."""
    with server.reading(repository) as (_, found):
        return views.repository(found)


@router.delete("/{repository}", status_code=204, response_class=Response)
def delete_repository(server: CurrentServer, repository: str, *, force: bool = False) -> None:
    """Delete a repository; its bytes go when the server starts the next time."""
    with server.writing(repository, force=force) as (tx, found):
        repositories.delete(tx, found.id)


@router.get("/{repository}/metadata")
def get_metadata(server: CurrentServer, repository: str) -> Json:
    """Return what is noted about a repository."""
    with server.reading(repository) as (_, found):
        return dict(found.metadata)


@router.post("/{repository}/metadata", status_code=204, response_class=Response)
def set_metadata(server: CurrentServer, repository: str, body: RepositoryMetadataSet) -> None:
    """Note something about a repository."""
    with server.writing(repository) as (tx, found):
        repositories.set_metadata(tx, found, body.metadata)


@router.delete("/{repository}/metadata", status_code=204, response_class=Response)
def delete_metadata(server: CurrentServer, repository: str, body: RepositoryMetadataKeys) -> None:
    """Forget some of what is noted about a repository."""
    with server.writing(repository) as (tx, found):
        repositories.set_metadata(tx, found, {}, body.keys)
