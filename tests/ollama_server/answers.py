"""Answers of the server: how they come over the wire, and how they break."""

import asyncio
import json
from collections.abc import AsyncGenerator

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from tests.ollama_server.runners import RefusedError
from tests.ollama_server.state import Fault, FaultKind, Json, OllamaTestServer


class Answer(Response):
    """An answer in one piece or in lines, and what goes wrong with it.

    An error before the first message has its status; a later one is a line of a stream whose
    status was 200.
    """

    def __init__(
        self, server: OllamaTestServer, path: str, messages: AsyncGenerator[Json], *, stream: bool
    ) -> None:
        super().__init__()
        self._server = server
        self._fault = server.faults.get(path)
        self._messages = messages
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        if fault is not None and fault.after == 0 and fault.kind is FaultKind.ERROR:
            await refused(RefusedError(fault.status, fault.words))(scope, receive, send)
            return
        if fault is not None and fault.after == 0 and fault.kind is not FaultKind.GARBAGE:
            await self._break(fault, receive, send)
            return
        answering = asyncio.ensure_future(self._answer(scope, receive, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            hangs = fault is not None and fault.kind is FaultKind.HANG
            ends = {answering} if hangs else {answering, leaving}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.wait({answering, leaving})
            await self._messages.aclose()
        if not answering.cancelled():
            answering.result()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            first = await anext(self._messages, None)
        except RefusedError as refusal:
            await refused(refusal)(scope, receive, send)
            return
        media = b"application/x-ndjson" if self._stream else b"application/json"
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", media)],
        }
        await send(start)
        number, message = 0, first
        while message is not None:
            if self._fault is not None and number == self._fault.after:
                await self._break(self._fault, receive, send)
                return
            await send(_piece(json.dumps(message) + "\n"))
            number += 1
            try:
                message = await anext(self._messages, None)
            except RefusedError as refusal:
                message = {"error": refusal.words}
                await send(_piece(json.dumps(message) + "\n", more=False))
                return
        await send(_piece("", more=False))

    async def _break(self, fault: Fault, receive: Receive, send: Send) -> None:
        match fault.kind:
            case FaultKind.HANG:
                self._server.hung.set()
                await _left(receive)
                self._server.left.set()
            case FaultKind.CUT:
                raise ConnectionAbortedError
            case FaultKind.ERROR:
                await send(_piece(json.dumps({"error": fault.words}) + "\n", more=False))
            case FaultKind.GARBAGE:
                await send(_piece("<html>\n", more=False))
            case FaultKind.END:
                await send(_piece("", more=False))


def refused(refusal: RefusedError) -> Response:
    """Return an error as an answer of its own."""
    return JSONResponse({"error": refusal.words}, status_code=refusal.status)


async def _left(receive: Receive) -> None:
    """Wait until the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _piece(text: str, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}
