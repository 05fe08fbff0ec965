"""What answers without credentials: health and setup state."""

from fastapi import APIRouter

from embedded.lakefs.views import Json

root = APIRouter()
api = APIRouter()


@root.get("/_health")
def alive() -> Json:
    """Say that the process serves."""
    return {"status": "ok"}


@api.get("/healthcheck", status_code=204)
def healthcheck() -> None:
    """Say that the API serves."""


@api.get("/setup_lakefs")
def setup_state() -> Json:
    """Say that no setup is needed: the key pair came with the start."""
    return {"state": "initialized", "comm_prefs_missing": False}
