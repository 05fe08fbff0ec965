"""Liveness and readiness of the front itself."""

from fastapi import APIRouter

from api.documented import STORE_ANSWERS
from api.services import Provided
from api.views import Message

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", summary="Whether the process answers")
async def live() -> Message:
    """Answer without asking anybody."""
    return Message(message="alive")


@router.get("/ready", summary="Whether jobs can be accepted", responses={503: STORE_ANSWERS[503]})
async def ready(services: Provided) -> Message:
    """Answer 200 when the ledger can be reached, else 503."""
    await services.ledger.ping()
    return Message(message="ready")
