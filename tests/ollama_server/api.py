"""The routes of Ollama's API that generate, list and show."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.ollama_server.answers import Answer, refused
from tests.ollama_server.runners import RefusedError, seconds_of
from tests.ollama_server.speech import Question, check_types, spoken
from tests.ollama_server.state import CREATED, Json, Model, OllamaTestServer
from tests.ollama_server.store import StoreRoutes, body_of, each, found


def application(server: OllamaTestServer) -> Starlette:
    """Return the routes of Ollama's API that the platform uses."""
    api, store = _Api(server), StoreRoutes(server)
    return Starlette(
        routes=[
            Route("/api/version", api.version),
            Route("/api/tags", api.tags),
            Route("/api/ps", api.ps),
            Route("/api/show", api.show, methods=["POST"]),
            Route("/api/generate", api.generate, methods=["POST"]),
            Route("/api/chat", api.chat, methods=["POST"]),
            *store.routes(),
        ],
        exception_handlers={RefusedError: _on_refusal},
    )


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return refused(error)


class _Api:
    def __init__(self, server: OllamaTestServer) -> None:
        self._server = server

    async def version(self, request: Request) -> Response:
        return await self._one(request, {"version": "0.30.0"})

    async def tags(self, request: Request) -> Response:
        return await self._one(
            request, {"models": [model.listed for model in self._server.models.values()]}
        )

    async def ps(self, request: Request) -> Response:
        running = [
            {
                "name": runner.model.name,
                "model": runner.model.name,
                "size": runner.model.layers[0],
                "digest": runner.model.digest,
                "details": runner.model.details,
                "expires_at": runner.expires_at.isoformat(),
                "size_vram": int(runner.model.layers[0] * self._server.gpu_share),
                "context_length": runner.launch.context_length,
            }
            for runner in self._server.scheduler.running()
        ]
        running.sort(key=lambda each: str(each["expires_at"]), reverse=True)
        return await self._one(request, {"models": running})

    async def show(self, request: Request) -> Response:
        model = found(self._server, await body_of(self._server, request))
        shown = {
            "modelfile": model.modelfile,
            "template": "{{ .Prompt }}",
            "details": model.details,
            "model_info": model.info,
            "capabilities": list(model.capabilities),
            "modified_at": CREATED,
        }
        return Answer(self._server, request.url.path, each(shown), stream=False)

    async def generate(self, request: Request) -> Response:
        body = await body_of(self._server, request)
        return self._run(request, body, "response", empty=not body.get("prompt"))

    async def chat(self, request: Request) -> Response:
        body = await body_of(self._server, request)
        return self._run(request, body, "message", empty=not body.get("messages"))

    def _run(self, request: Request, body: Json, key: str, *, empty: bool) -> Response:
        model = found(self._server, body)
        stay = body.get("keep_alive")
        unload = stay is not None and seconds_of(stay) == 0 and empty
        if unload:
            self._server.scheduler.expire(model)
            ended = {"model": body["model"], "response": "", "done": True, "done_reason": "unload"}
            return Answer(self._server, request.url.path, each(ended), stream=False)
        if "completion" not in model.capabilities:
            verb = request.url.path.rpartition("/")[2]
            raise RefusedError(400, f'"{body["model"]}" does not support {verb}')
        thinks = "thinking" in model.capabilities
        if body.get("think") and not thinks:
            raise RefusedError(400, f'"{body["model"]}" does not support thinking')
        check_types(body.get("options") or {})
        question = Question(body, key, thinks and body.get("think") is not False)
        messages = self._answer(model, question, empty=empty)
        stream = bool(body.get("stream", True)) and not empty
        return Answer(self._server, request.url.path, messages, stream=stream)

    async def _answer(
        self, model: Model, question: Question, *, empty: bool
    ) -> AsyncGenerator[Json]:
        """Load the model and generate; a request without a prompt only loads."""
        async with self._server.scheduler.using(model, question.body) as runner:
            if empty:
                name = question.body["model"]
                yield {"model": name, "response": "", "done": True, "done_reason": "load"}
                return
            async with aclosing(spoken(self._server, runner, question)) as messages:
                async for message in messages:
                    yield message

    async def _one(self, request: Request, answer: Json) -> Response:
        self._server.requests.append((request.url.path, {}))
        return Answer(self._server, request.url.path, each(answer), stream=False)
