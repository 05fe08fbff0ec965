"""Addresses for whoever runs the hub: health, counters and faults."""

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embedded.hub.faults import Fault, FaultPlan
from embedded.hub.stats import Stats


class FaultList(BaseModel):
    """The body of `PUT /_faults`."""

    faults: list[Fault]


class Admin:
    """Handlers of `/_health`, `/_stats` and, where faults are allowed, `/_faults`."""

    def __init__(self, faults: FaultPlan | None, stats: Stats) -> None:
        self._faults = faults
        self._stats = stats

    def routes(self) -> list[Route]:
        """Return the addresses."""
        routes = [
            Route("/_health", self._health),
            Route("/_stats", self._read_stats),
            Route("/_stats", self._reset_stats, methods=["DELETE"]),
        ]
        if self._faults is not None:
            routes.append(Route("/_faults", self._put_faults, methods=["PUT"]))
        return routes

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _read_stats(self, _request: Request) -> Response:
        return JSONResponse(self._stats.snapshot())

    async def _reset_stats(self, _request: Request) -> Response:
        self._stats.reset()
        return Response(status_code=204)

    async def _put_faults(self, request: Request) -> Response:
        assert self._faults is not None  # noqa: S101 — the route exists only then
        try:
            asked = FaultList.model_validate_json(await request.body())
        except ValidationError as error:
            return JSONResponse({"error": str(error)}, 422)
        self._faults.replace(asked.faults)
        return JSONResponse(asked.model_dump(mode="json"))
