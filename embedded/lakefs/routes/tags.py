"""`/repositories/{repository}/tags`: names that stay."""

from fastapi import APIRouter
from starlette.responses import Response

from embedded.lakefs import tags, views
from embedded.lakefs.bodies import TagCreation
from embedded.lakefs.paging import PagingQuery, by_key, cut
from embedded.lakefs.server import CurrentServer
from embedded.lakefs.views import Json

router = APIRouter(prefix="/repositories/{repository}/tags")


@router.get("")
def list_tags(server: CurrentServer, repository: str, paging: PagingQuery) -> Json:
    """List tags by name."""
    with server.reading(repository) as (tx, _):
        found = {item.id: item for item in tags.every(tx, repository)}
    return cut(by_key(found), paging).view(lambda _, item: views.ref(item))


@router.post("", status_code=201)
def create_tag(server: CurrentServer, repository: str, body: TagCreation) -> Json:
    """Create a tag."""
    with server.writing(repository, force=body.force) as (tx, _):
        return views.ref(tags.create(tx, repository, body.id, body.ref))


@router.get("/{tag}")
def get_tag(server: CurrentServer, repository: str, tag: str) -> Json:
    """Return one tag."""
    with server.reading(repository) as (tx, _):
        return views.ref(tags.get(tx, repository, tag))


@router.delete("/{tag}", status_code=204, response_class=Response)
def delete_tag(server: CurrentServer, repository: str, tag: str, *, force: bool = False) -> None:
    """Delete a tag."""
    with server.writing(repository, force=force) as (tx, _):
        tags.delete(tx, repository, tag)
