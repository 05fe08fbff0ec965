"""The hub as an ASGI application: its collaborators and its addresses."""

from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from embedded.hub.access import Door
from embedded.hub.admin import Admin
from embedded.hub.api import Api
from embedded.hub.errors import HubError
from embedded.hub.faults import FaultPlan
from embedded.hub.files import Files
from embedded.hub.gate import Gate
from embedded.hub.links import LinkSigner
from embedded.hub.repository import ModelStore
from embedded.hub.stats import Stats

#: The real hub's page of a tree listing.
TREE_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How to serve."""

    root: Path
    #: Opens private and gated models; without it they stay closed.
    token: str | None = None
    #: Whether `/_faults` may be used.
    faults_enabled: bool = False
    #: Where clients are sent for large files, if not to the host that they asked.
    cdn_url: str | None = None
    tree_page_size: int = TREE_PAGE_SIZE


def create_app(
    settings: HubSettings, faults: FaultPlan | None = None, stats: Stats | None = None
) -> ASGIApp:
    """Build the application; a test in its process may pass the faults and counters it holds."""
    faults, stats = faults or FaultPlan(), stats or Stats()
    store = ModelStore(settings.root)
    door = Door(store, settings.token)
    api = Api(store, door, settings.tree_page_size)
    files = Files(store, door, LinkSigner(), faults, stats, settings.cdn_url)
    admin = Admin(faults if settings.faults_enabled else None, stats)
    app = Starlette(
        routes=[
            *admin.routes(),
            Route("/api/models", api.list_models),
            Route("/api/models/{rest:path}", api.answer, methods=["GET", "POST"]),
            Route("/cdn/{rest:path}", files.from_cdn),
            Route("/{rest:path}", files.resolve),
        ],
        exception_handlers={HubError: _refuse},
    )
    return Gate(app, faults, stats)


async def _refuse(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HubError):
        raise error
    headers = {"X-Error-Message": error.message, **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    printable = {name: _as_header(value) for name, value in headers.items()}
    return JSONResponse({"error": error.message}, error.status, printable)


def _as_header(value: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in value)
