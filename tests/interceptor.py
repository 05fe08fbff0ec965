"""A proxy that stops the world at one exchange: the server has done it, the client never hears."""

import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tests.processes import free_port, wait_until

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host"}


class Interceptor:
    """Passes everything on, but for the answer to the call that is waited for."""

    def __init__(self, upstream: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        #: Set when the call was answered by the server, and the answer is held.
        self.caught = threading.Event()
        self._upstream = upstream
        self._pattern: re.Pattern[str] | None = None

    def catch(self, pattern: str) -> None:
        """Hold the answer to the next ``METHOD /path`` that a pattern fits; the later ones pass."""
        self.caught.clear()
        self._pattern = re.compile(pattern)

    async def handle(self, request: Request) -> Response:
        """Pass one call on; a client that died in its middle is no error of ours."""
        try:
            return await self._pass(request)
        except ClientDisconnect:
            return Response(status_code=499)

    async def _pass(self, request: Request) -> Response:

        async def body() -> AsyncIterator[bytes]:
            async for chunk in request.stream():
                yield chunk

        length = request.headers.get("content-length")
        headers = [
            (name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP
        ]
        if length:
            headers.append(("content-length", length))
        async with httpx.AsyncClient(base_url=self._upstream, timeout=60) as upstream:
            answer = await upstream.request(
                request.method,
                httpx.URL(path=request.url.path, query=request.url.query.encode()),
                headers=headers,
                content=body() if length and length != "0" else None,
            )
        if self._pattern and self._pattern.search(f"{request.method} {request.url.path}"):
            self._pattern = None
            self.caught.set()
            # The client is about to die: its disconnection ends the wait.
            while not await request.is_disconnected():
                await request.receive()
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
        return Response(answer.content, answer.status_code, kept)


Proxy = TypeVar("Proxy", bound=Interceptor)


@contextmanager
def intercepting(upstream: str) -> Iterator[Interceptor]:
    """Run a proxy in front of a server for the length of a block."""
    with proxying(Interceptor(upstream)) as interceptor:
        yield interceptor


@contextmanager
def proxying(interceptor: Proxy) -> Iterator[Proxy]:
    """Run a proxy for the length of a block."""
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", interceptor.handle, methods=methods)])
    config = uvicorn.Config(
        app, port=interceptor.port, log_level="error", lifespan="off", loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="proxy")
        yield interceptor
    finally:
        server.should_exit = True
        thread.join(30)
