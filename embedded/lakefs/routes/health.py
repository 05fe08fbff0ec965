"""Health, which answers without credentials."""

from fastapi import APIRouter
from starlette.responses import Response

from embedded.lakefs.views import Json

root = APIRouter()
api = APIRouter()


@root.get("/_health")
def alive() -> Json:
    """Say that the process serves."""
    return {"status": "ok"}


@api.get("/healthcheck", status_code=204, response_class=Response)
def healthcheck() -> None:
    """Say that the API serves."""
