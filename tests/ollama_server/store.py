"""The routes of Ollama's API that change which models it has."""

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.ollama_server.answers import Answer
from tests.ollama_server.runners import RefusedError
from tests.ollama_server.state import BLOBS, Json, Model, OllamaTestServer


class StoreRoutes:
    """Pull, create, copy, delete, and files."""

    def __init__(self, server: OllamaTestServer) -> None:
        self._server = server

    def routes(self) -> list[Route]:
        """Return them with their paths."""
        return [
            Route("/api/pull", self.pull, methods=["POST"]),
            Route("/api/create", self.create, methods=["POST"]),
            Route("/api/copy", self.copy, methods=["POST"]),
            Route("/api/delete", self.delete, methods=["DELETE"]),
            Route("/api/blobs/{digest}", self.has_blob, methods=["HEAD"]),
            Route("/api/blobs/{digest}", self.add_blob, methods=["POST"]),
        ]

    async def pull(self, request: Request) -> Response:
        body = await body_of(self._server, request)
        messages = self._pull(tagged(body["model"]))
        return Answer(self._server, request.url.path, messages, stream=True)

    async def create(self, request: Request) -> Response:
        body = await body_of(self._server, request)
        return Answer(self._server, request.url.path, self._create(body), stream=True)

    async def copy(self, request: Request) -> Response:
        body = await body_of(self._server, request)
        source = found(self._server, body, key="source", words='model "{name}" not found')
        # The manifest goes with it, so both names have one digest.
        copied = replace(source, name=tagged(body["destination"]))
        self._server.have(replace(copied, content=source.content or source.name))
        return Response()

    async def delete(self, request: Request) -> Response:
        model = found(self._server, await body_of(self._server, request))
        del self._server.models[model.name]
        return Response()

    async def has_blob(self, request: Request) -> Response:
        digest = request.path_params["digest"].removeprefix("sha256:")
        held = {*self._server.blobs, *(model.blob for model in self._server.models.values())}
        return Response(status_code=200 if digest in held else 404)

    async def add_blob(self, request: Request) -> Response:
        digest, size = hashlib.sha256(), 0
        async for piece in request.stream():
            digest.update(piece)
            size += len(piece)
        named, true = request.path_params["digest"], f"sha256:{digest.hexdigest()}"
        self._server.requests.append((request.url.path, {}))
        self._server.blobs[digest.hexdigest()] = size
        if named != true:
            raise RefusedError(400, f'digest mismatch, expected "{named}", got "{true}"')
        return Response(status_code=201)

    async def _pull(self, name: str) -> AsyncGenerator[Json]:
        yield {"status": "pulling manifest"}
        if self._server.registry_fails:
            raise RefusedError(500, f"pull model manifest: {self._server.registry_fails}")
        model = self._server.library.get(name)
        if model is None:
            raise RefusedError(500, "pull model manifest: file does not exist")
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

    async def _create(self, body: Json) -> AsyncGenerator[Json]:
        """Make a model of another or of a file; what it says beside that is in its manifest."""
        name = tagged(body["model"])
        said = {key: body.get(key) for key in ("template", "system", "parameters", "license")}
        if body.get("from"):
            base = self._server.models.get(tagged(body["from"]))
            if base is None:
                raise RefusedError(400, "pull model manifest: file does not exist")
            content, parent, layers = base.content or base.name, base.name, base.layers
        elif files := body.get("files"):
            digest = next(iter(files.values())).removeprefix("sha256:")
            if digest not in self._server.blobs:
                raise RefusedError(400, f'blob "sha256:{digest}" not found')
            content, parent = digest, f"{BLOBS}/sha256-{digest}"
            layers = (self._server.blobs[digest], 300, 20)
        else:
            raise RefusedError(400, "neither 'from' or 'files' was specified")
        yield {"status": "parsing GGUF"}
        yield {"status": "writing manifest"}
        made = Model(name, layers, content=content, parent_model=parent, manifest=str(said))
        self._server.have(made)
        yield {"status": "success"}


async def each(*messages: Json) -> AsyncGenerator[Json]:
    """Yield messages that are there."""
    for message in messages:
        yield message


async def body_of(server: OllamaTestServer, request: Request) -> Json:
    """Return what a request says, and keep it."""
    body: Json = await request.json()
    server.requests.append((request.url.path, body))
    return body


def found(
    server: OllamaTestServer,
    body: Json,
    key: str = "model",
    words: str = "model '{name}' not found",
) -> Model:
    """Return the model that a request names."""
    model = server.models.get(tagged(body[key]))
    if model is None:
        raise RefusedError(404, words.format(name=body[key]))
    return model


def tagged(name: str) -> str:
    """Return a name with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
