"""Every call seen once: its id, its line in the log, its place in the metrics."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import template_of
from api.errors import REQUEST_ID
from api.metrics import HttpMetrics
from shared.ledger.record import new_id

#: What a client or a proxy may call its request; anything else gets an id of ours.
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Asked all the time by machines: counted, not logged.
_QUIET = {"/health/live", "/health/ready", "/metrics"}
_METHODS = {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"}

log = structlog.get_logger()


class Observation:
    """Binds a request id for all logs of a call, answers with it, and notes how the call went."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Not unbound at the end: what is logged of a defect after us has the id too.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=_request_id(scope))
        call = _Call(scope, send, self._metrics)
        with self._metrics.open.track_inprogress():
            try:
                await self._app(scope, receive, call.send)
            finally:
                call.note()


class _Call:
    def __init__(self, scope: Scope, send: Send, metrics: HttpMetrics) -> None:
        self._scope = scope
        self._send = send
        self._metrics = metrics
        self._began = time.perf_counter()
        #: What a client sees of a call that ends without an answer.
        self._status = 500
        self._answered = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            request_id = structlog.contextvars.get_contextvars()["request_id"]
            MutableHeaders(scope=message)[REQUEST_ID] = request_id
            self._count()
        await self._send(message)

    def note(self) -> None:
        if not self._answered:
            self._count()
        path = self._scope["path"]
        if path not in _QUIET:
            log.info(
                "call",
                method=self._scope["method"],
                route=self._route,
                path=path,
                status=self._status,
                ms=round((time.perf_counter() - self._began) * 1000, 1),
                **{k: v for k, v in self._scope.get("path_params", {}).items() if k == "job_id"},
            )

    def _count(self) -> None:
        self._answered = True
        method = self._scope["method"]
        self._metrics.seconds.labels(
            method=method if method in _METHODS else "other",
            route=self._route,
            status=f"{self._status // 100}xx",
        ).observe(time.perf_counter() - self._began)

    @property
    def _route(self) -> str:
        """The path's template, so that there are as many as in OpenAPI; one for all unknown."""
        route = getattr(self._scope.get("route"), "path", None)
        # What is refused before the routes has none.
        return route or template_of(self._scope["method"], self._scope["path"]) or "unknown"


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _GIVEN_ID.fullmatch(given) else new_id()
