"""Answers of the server: how they come over the wire, and how they break."""

import json
from collections.abc import AsyncIterator

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from tests.ollama_server.state import Fault, FaultKind, Json, OllamaTestServer


class Answer(Response):
    """An answer in one piece or in lines, and what goes wrong with it."""

    def __init__(
        self, server: OllamaTestServer, path: str, messages: AsyncIterator[Json], *, stream: bool
    ) -> None:
        super().__init__()
        self._server = server
        self._fault = server.faults.get(path)
        self._messages = messages
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        if fault is not None and fault.after == 0 and fault.kind is FaultKind.ERROR:
            error = JSONResponse({"error": fault.words}, status_code=fault.status)
            await error(scope, receive, send)
            return
        if fault is not None and fault.after == 0 and fault.kind is not FaultKind.GARBAGE:
            await self._break(fault, receive, send)
            return
        media = b"application/x-ndjson" if self._stream else b"application/json"
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", media)],
        }
        await send(start)
        number = 0
        async for message in self._messages:
            if fault is not None and number == fault.after:
                await self._break(fault, receive, send)
                return
            await send(_piece(json.dumps(message) + "\n"))
            number += 1
        await send(_piece("", more=False))

    async def _break(self, fault: Fault, receive: Receive, send: Send) -> None:
        match fault.kind:
            case FaultKind.HANG:
                self._server.hung.set()
                while (await receive())["type"] != "http.disconnect":
                    pass
                self._server.left.set()
            case FaultKind.CUT:
                raise ConnectionAbortedError
            case FaultKind.ERROR:
                await send(_piece(json.dumps({"error": fault.words}) + "\n", more=False))
            case FaultKind.GARBAGE:
                await send(_piece("<html>\n", more=False))
            case FaultKind.END:
                await send(_piece("", more=False))


def _piece(text: str, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}
