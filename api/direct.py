"""A short way for usual inferences: from the body to the job without routing.

Starlette's routing and FastAPI's solving of dependencies take half the time of a submit. Here a
well-formed request is read directly. Any other goes the usual way, so that the rules and the errors
are those of the declared parameters.
"""

import json
import re
from collections.abc import Awaitable, Callable

from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.callers import Caller
from api.errors import refusal
from api.services import Services
from api.waiting import MAX_WAIT_SECONDS, Wait, preferred_seconds
from shared.errors import LifecycleError
from shared.requests import InferRequest

Infer = Callable[[Services, Caller, Wait, InferRequest], Awaitable[Response]]

#: Larger bodies, and those of unknown length, go the usual way.
_MAX_BYTES = 1024 * 1024
_WAIT = re.compile(rb"(?:wait=(\d{1,3}(?:\.\d{1,6})?))?")
_MAX_KEY_LENGTH = 255


class DirectInference:
    """Calls the endpoint of a path directly where the request is a usual one."""

    def __init__(self, app: ASGIApp, *, path: str, services: Services, infer: Infer) -> None:
        self._app = app
        self._path = path
        self._services = services
        self._infer = infer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call, or pass it on."""
        if scope.get("path") != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        wait = _wait_of(scope, headers)
        if wait is None or not _is_small_json(headers):
            await self._app(scope, receive, send)
            return
        body, messages = await _read(receive)
        asked = _asked_by(body)
        if asked is None:
            await self._app(scope, _again(messages, receive), send)
            return
        try:
            answer = await self._infer(self._services, scope["caller"], wait, asked)
        except LifecycleError as error:
            answer = refusal(error)
        await answer(scope, receive, send)


def _wait_of(scope: Scope, headers: Headers) -> Wait | None:
    """Return what a submit says beside its body; None if that is to be looked at more closely."""
    key, query = headers.get("idempotency-key"), _WAIT.fullmatch(scope["query_string"])
    if query is None or (key is not None and not 0 < len(key) <= _MAX_KEY_LENGTH):
        return None
    seconds = float(query[1]) if query[1] else preferred_seconds(headers.getlist("prefer"))
    if seconds > MAX_WAIT_SECONDS:
        return None
    return Wait(seconds, key, scope["caller"].id)


def _is_small_json(headers: Headers) -> bool:
    length = headers.get("content-length", "")
    is_json = headers.get("content-type", "").partition(";")[0] == "application/json"
    return is_json and length.isascii() and length.isdigit() and int(length) <= _MAX_BYTES


async def _read(receive: Receive) -> tuple[bytes, list[Message]]:
    """Return a body, as far as it came, and the messages that brought it."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return b"".join(message.get("body", b"") for message in messages), messages


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Return what receives messages that were received before, and then further ones."""
    left = iter(messages)

    async def received() -> Message:
        return next(left, None) or await receive()

    return received


def _asked_by(body: bytes) -> InferRequest | None:
    """Return a request; None if it is to be looked at more closely."""
    try:
        return InferRequest.model_validate(json.loads(body))
    except (ValueError, RecursionError):
        return None
