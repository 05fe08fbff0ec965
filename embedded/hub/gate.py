"""In front of every request: counts it, and lets the faults that need no body happen."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from embedded.hub.faults import FaultKind, FaultPlan
from embedded.hub.stats import Stats
from embedded.hub.transfer import wait_until_gone

ADMIN_PREFIX = "/_"


class Gate:
    """ASGI middleware; addresses of the operator pass uncounted and unharmed."""

    def __init__(self, app: ASGIApp, faults: FaultPlan, stats: Stats) -> None:
        self._app = app
        self._faults = faults
        self._stats = stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"].startswith(ADMIN_PREFIX):
            await self._app(scope, receive, send)
            return
        self._stats.count_request(scope["method"], scope["path"])
        faults = self._faults.take(scope["method"], scope["path"], of_body=False)
        if not faults:
            await self._app(scope, receive, send)
        elif faults[0].kind is FaultKind.HANG:
            await wait_until_gone(receive)
        else:
            wait = faults[0].retry_after_seconds
            headers = {} if wait is None else {"Retry-After": str(wait)}
            answer = JSONResponse(
                {"error": "A fault that a test asked for"}, faults[0].status, headers
            )
            await answer(scope, receive, send)
