"""What is at a reference: listings and single entries."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request

from embedded.lakefs import staging, views
from embedded.lakefs.model import Entry, Repository
from embedded.lakefs.paging import PagingQuery, cut
from embedded.lakefs.routes.presigned import blob_link
from embedded.lakefs.server import CurrentServer, Server
from embedded.lakefs.views import Json

router = APIRouter(prefix="/repositories/{repository}/refs/{ref}/objects")


@dataclass(frozen=True, slots=True)
class Details:
    """What a client wants to know of each object."""

    server: Server
    request: Request
    user_metadata: bool
    #: Whether the address is to be a signed link.
    presign: bool

    def show(self, repository: Repository, path: str, entry: Entry) -> Json:
        """Show an object with these details."""
        if self.presign:
            link = blob_link(self.server, self.request, entry.digest)
            shown = views.linked_entry(path, entry, link)
        else:
            shown = views.entry(path, entry, repository.physical(f"data/{entry.digest}"))
        return shown if self.user_metadata else shown | {"metadata": {}}

    def show_in_list(self, repository: Repository, path: str, entry: Entry) -> Json:
        """Show an object among others, where lakeFS leaves out what is empty."""
        shown = self.show(repository, path, entry)
        if not shown["metadata"]:
            del shown["metadata"]
        return shown


async def details_query(
    server: CurrentServer, request: Request, *, user_metadata: bool = True, presign: bool = False
) -> Details:
    """Return what a request's query asks for."""
    return Details(server, request, user_metadata, presign)


DetailsQuery = Annotated[Details, Depends(details_query)]


@router.get("/ls")
def list_objects(
    server: CurrentServer,
    repository: str,
    ref: str,
    paging: PagingQuery,
    details: DetailsQuery,
    delimiter: str = "",
) -> Json:
    """List objects by path, with prefixes folded at a delimiter if one is given."""
    with server.reading(repository) as (tx, found):
        page = cut(staging.walk_at(tx, repository, ref), paging, delimiter)
    return page.view(lambda path, entry: details.show_in_list(found, path, entry))


@router.get("/stat")
def stat_object(
    server: CurrentServer, repository: str, ref: str, path: str, details: DetailsQuery
) -> Json:
    """Describe one object."""
    with server.reading(repository) as (tx, found):
        entry = staging.get(tx, repository, ref, path)
    return details.show(found, path, entry)
