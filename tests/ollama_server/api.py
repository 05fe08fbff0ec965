"""The routes of Ollama's API that the platform uses."""

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.ollama_server.answers import Answer
from tests.ollama_server.speech import spoken
from tests.ollama_server.state import CREATED, Json, Model, OllamaTestServer


def application(server: OllamaTestServer) -> Starlette:
    """Return the routes of Ollama's API that the platform uses."""
    api = _Api(server)
    return Starlette(
        routes=[
            Route("/api/version", api.version),
            Route("/api/tags", api.tags),
            Route("/api/ps", api.ps),
            Route("/api/show", api.show, methods=["POST"]),
            Route("/api/pull", api.pull, methods=["POST"]),
            Route("/api/delete", api.delete, methods=["DELETE"]),
            Route("/api/generate", api.generate, methods=["POST"]),
            Route("/api/chat", api.chat, methods=["POST"]),
        ]
    )


class _Api:
    def __init__(self, server: OllamaTestServer) -> None:
        self._server = server

    async def version(self, request: Request) -> Response:
        return await self._one(request, {"version": "0.12.0"})

    async def tags(self, request: Request) -> Response:
        return await self._one(
            request, {"models": [model.listed for model in self._server.models.values()]}
        )

    async def ps(self, request: Request) -> Response:
        running = [
            {**model.listed, "expires_at": CREATED, "size_vram": model.listed["size"]}
            for model in self._server.models.values()
            if model.name in self._server.loaded
        ]
        return await self._one(request, {"models": running})

    async def show(self, request: Request) -> Response:
        body = await self._body(request)
        model = self._find(body)
        if model is None:
            return _missing(body)
        info = {"general.architecture": "llama", "general.parameter_count": model.parameter_count}
        shown = {
            "modelfile": "",
            "template": "{{ .Prompt }}",
            "details": model.details,
            "model_info": {key: value for key, value in info.items() if value is not None},
            "capabilities": list(model.capabilities),
            "modified_at": CREATED,
        }
        return Answer(self._server, request.url.path, _each(shown), stream=False)

    async def delete(self, request: Request) -> Response:
        body = await self._body(request)
        model = self._find(body)
        if model is None:
            return _missing(body)
        del self._server.models[model.name]
        return Response()

    async def pull(self, request: Request) -> Response:
        body = await self._body(request)
        messages = self._pull(_tagged(body["model"]))
        return Answer(self._server, request.url.path, messages, stream=True)

    async def _pull(self, name: str) -> AsyncIterator[Json]:
        yield {"status": "pulling manifest"}
        model = self._server.library.get(name)
        if model is None:
            yield {"error": "pull model manifest: file does not exist"}
            return
        for digest, size in zip(model.digests, model.layers, strict=True):
            layer = {
                "status": f"pulling {digest[:12]}",
                "digest": f"sha256:{digest}",
                "total": size,
            }
            if digest not in self._server.fetched:
                yield layer  # before the first bytes, without "completed"
            for part in (1, 2, 3, 4):
                done = max(self._server.fetched.get(digest, 0), size * part // 4)
                self._server.fetched[digest] = done
                yield {**layer, "completed": done}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self._server.have(model)
        yield {"status": "success"}

    async def generate(self, request: Request) -> Response:
        body = await self._body(request)
        return self._run(request, body, body.get("prompt", ""), "response")

    async def chat(self, request: Request) -> Response:
        body = await self._body(request)
        heard = " ".join(f"{m['role']}: {m.get('content', '')}" for m in body["messages"])
        return self._run(request, body, heard, "message")

    def _run(self, request: Request, body: Json, prompt: str, key: str) -> Response:
        model = self._find(body)
        if model is None:
            return _missing(body)
        if "completion" not in model.capabilities:
            words = f'"{model.name}" does not support {request.url.path.rpartition("/")[2]}'
            return JSONResponse({"error": words}, status_code=400)
        if body.get("keep_alive") == 0 and not prompt:
            self._server.loaded = [name for name in self._server.loaded if name != model.name]
            ended = {"model": body["model"], "response": "", "done": True, "done_reason": "unload"}
            return Answer(self._server, request.url.path, _each(ended), stream=False)
        if model.name not in self._server.loaded:
            self._server.loaded.append(model.name)
        messages = spoken(body, prompt, key)
        return Answer(
            self._server, request.url.path, messages, stream=bool(body.get("stream", True))
        )

    async def _one(self, request: Request, answer: Json) -> Response:
        self._server.requests.append((request.url.path, {}))
        return Answer(self._server, request.url.path, _each(answer), stream=False)

    async def _body(self, request: Request) -> Json:
        body: Json = await request.json()
        self._server.requests.append((request.url.path, body))
        return body

    def _find(self, body: Json) -> Model | None:
        return self._server.models.get(_tagged(body["model"]))


async def _each(*messages: Json) -> AsyncIterator[Json]:
    for message in messages:
        yield message


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _missing(body: Json) -> Response:
    return JSONResponse({"error": f"model '{body['model']}' not found"}, status_code=404)
