"""Lets each call through to whom it is meant for, before anything more of it is read."""

import structlog
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import ANSWERED_UNCHECKED, role_for
from api.callers import NOBODY, UNCHECKED, Caller, Callers
from api.errors import refusal
from api.exposure import is_from_elsewhere
from shared.errors import ForbiddenError, LifecycleError, UnavailableError
from shared.identity.rates import RateLimit
from shared.identity.roles import Role

log = structlog.get_logger()


class Guard:
    """Answers 401, 403 or 429 itself; the calls that pass carry their caller."""

    def __init__(
        self, app: ASGIApp, *, callers: Callers, rate: RateLimit, allow_open: bool
    ) -> None:
        self._app = app
        self._callers = callers
        self._rate = rate
        self._allow_open = allow_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        needed = role_for(scope.get("method", ""), scope["path"])
        # What the app does not know is left to its 404 and 405.
        if needed is not None and not (needed is Role.ADMIN and _is_unknown(scope)):
            try:
                scope["caller"] = await self._admitted(scope, needed)
            except LifecycleError as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admitted(self, scope: Scope, needed: Role) -> Caller:
        headers, method = Headers(scope=scope), scope.get("method", "")
        try:
            caller = await self._callers.identify(key_in(headers))
        except UnavailableError:
            if f"{method} {scope['path']}" in ANSWERED_UNCHECKED:
                return UNCHECKED
            raise
        if caller is NOBODY and not self._allow_open and is_from_elsewhere(method, headers):
            raise ForbiddenError("without API keys, only this machine is served (API_ALLOW_OPEN)")
        if not caller.role.covers(needed):
            log.warning("call refused", key_id=caller.id, role=caller.role, needed=needed)
            raise ForbiddenError(f"the call takes the role {needed}; the API key has {caller.role}")
        if self._rate.applies and method not in {"GET", "HEAD"}:
            await self._rate.take(caller.id or _address(scope))
        return caller


def _is_unknown(scope: Scope) -> bool:
    routes: list[BaseRoute] = scope["app"].routes
    return all(route.matches(dict(scope))[0] is not Match.FULL for route in routes)


def key_in(headers: Headers) -> str | None:
    """Return the text of the API key that a call shows."""
    # `Headers.get` searches, and raises inside, once for each header that is not there.
    first = dict(reversed(headers.raw))
    scheme, _, text = first.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip()
    return first.get(b"x-api-key", b"").decode("latin-1").strip() or None


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return f"address:{client[0]}" if client else "address:"
