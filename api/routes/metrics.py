"""Metrics in Prometheus' text format."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.callers import UNCHECKED, Calling
from api.services import Provided

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
def metrics(services: Provided, caller: Calling) -> Response:
    """Return the platform's counters and this process' own; without Redis, the latter only."""
    text = services.metrics.text(with_platform=caller is not UNCHECKED)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
