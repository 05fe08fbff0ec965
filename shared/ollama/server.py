"""An Ollama server, through the client that its authors publish."""

import ipaddress
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import httpx
import ollama

from shared.cancellation import CancelToken
from shared.interruptible import interruptible
from shared.ollama.errors import missing, translated, unavailable
from shared.ollama.streams import iterate
from shared.ollama.types import (
    LoadedOllamaModel,
    Messages,
    OllamaChunk,
    OllamaDetails,
    OllamaModel,
    OllamaSampling,
    Pulled,
    full_name,
)
from shared.settings import OllamaSettings

#: Takes the bytes that are done, those in all if known, and a message.
OnProgress = Callable[[int, int | None, str], None]
T = TypeVar("T")
Answer = TypeVar("Answer", ollama.GenerateResponse, ollama.ChatResponse)

#: A stream that is silent for this long is dead. Loading a model, and verifying one that was
#: pulled, are silent for minutes.
SILENCE_SECONDS = 1800.0
#: A server that does not answer a simple question within this time, while a stream is silent, is
#: frozen.
PROBE_SECONDS = 30.0


class _Uncut(ollama.AsyncClient):
    """A client whose requests say that nothing is to be cut.

    Ollama drops the beginning of a prompt that is longer than the context, and shifts the context
    when the answer reaches its end, both without a word. Its client has no parameters for that.
    """

    async def _request(  # type: ignore[override]
        self, *args: Any, json: dict[str, Any], **kwargs: Any
    ) -> Any:
        uncut = {**json, "truncate": False, "shift": False}
        return await super()._request(*args, json=uncut, **kwargs)


class OllamaServer:
    """Safe to use from several threads; holds no connection between calls."""

    def __init__(self, settings: OllamaSettings) -> None:
        self.host = settings.host
        self._timeout_seconds = settings.timeout_seconds
        self._ssl = httpx.create_ssl_context()
        # httpx would ask a proxy of the environment for this machine's own addresses too.
        self._trust_env = not _is_loopback(settings.host)

    # ── what it has ──────────────────────────────────────────────────────────

    def models(self) -> list[OllamaModel]:
        """Return all models of the server."""
        with self._client() as client:
            return [OllamaModel.of(listed) for listed in interruptible(client.list).models]

    def model(self, name: str) -> OllamaModel:
        """Return one of them; raise ``NotFoundError`` if it is not there."""
        models = self.models()
        if (found := _named(name, models)) is None:
            raise missing(self.host, full_name(name), [model.name for model in models])
        return found

    def find(self, name: str) -> OllamaModel | None:
        """Return one of them; None if it is not there."""
        return _named(name, self.models())

    def show(self, name: str) -> OllamaDetails:
        """Return what the server knows of a model; raise ``NotFoundError`` if it is not there."""
        with self._client(name) as client:
            return OllamaDetails.of(interruptible(lambda: client.show(name)))

    def loaded(self) -> list[LoadedOllamaModel]:
        """Return the models in the server's memory."""
        with self._client() as client:
            return [LoadedOllamaModel.of(running) for running in interruptible(client.ps).models]

    def unload(self, name: str) -> None:
        """Have the server free a model's memory once its running requests are done."""
        with self._client(name) as client:
            interruptible(lambda: client.generate(name, keep_alive=0))

    def health(self) -> float:
        """Return how many seconds an answer takes; raise ``UnavailableError`` if there is none."""
        started = time.perf_counter()
        self.loaded()
        return time.perf_counter() - started

    # ── what it does ─────────────────────────────────────────────────────────

    def pull(self, name: str, token: CancelToken, on_progress: OnProgress) -> Pulled:
        """Have the server fetch a model; it goes on where an earlier pull was stopped.

        The total grows as the server comes to further files.
        """
        files: dict[str, tuple[int, int]] = {}
        status = None
        pull = self._stream(name, lambda client: client.pull(name, stream=True), token)
        with closing(pull) as messages:
            for message in messages:
                status = message.status
                if message.digest and message.total:
                    files[message.digest] = (message.completed or 0, message.total)
                completed = sum(done for done, _ in files.values())
                total = sum(size for _, size in files.values())
                on_progress(completed, total or None, status or "")
        if status != "success":
            raise unavailable(self.host, f"broke off its pull of {name} at {status!r}")
        return Pulled(len(files), sum(size for _, size in files.values()))

    def generate(
        self, name: str, prompt: str, sampling: OllamaSampling, token: CancelToken
    ) -> Generator[OllamaChunk, None, None]:
        """Yield the answer to a prompt, which the server puts into the model's template."""
        return self._answer(
            name,
            lambda client: client.generate(
                name,
                prompt,
                stream=True,
                options=sampling.options,
                keep_alive=sampling.keep_alive,
                think=sampling.think,
                format=sampling.format,
            ),
            token,
        )

    def chat(
        self, name: str, messages: Messages, sampling: OllamaSampling, token: CancelToken
    ) -> Generator[OllamaChunk, None, None]:
        """Yield the answer to a chat."""
        # Of a message nothing but these: the client would read an image's path from our disk.
        said = [{"role": m["role"], "content": m["content"]} for m in messages]
        return self._answer(
            name,
            lambda client: client.chat(
                name,
                said,
                stream=True,
                options=sampling.options,
                keep_alive=sampling.keep_alive,
                think=sampling.think,
                format=sampling.format,
            ),
            token,
        )

    def _answer(
        self,
        name: str,
        ask: Callable[[ollama.AsyncClient], Awaitable[AsyncIterator[Answer]]],
        token: CancelToken,
    ) -> Generator[OllamaChunk, None, None]:
        """Yield the chunks of an answer, the last one with its ending."""
        chunk = None
        with closing(self._stream(name, ask, token, _Uncut)) as messages:
            for message in messages:
                chunk = OllamaChunk.of(message)
                yield chunk
        if chunk is None or chunk.ending is None:
            raise unavailable(self.host, f"broke off in the middle of an answer of {name}")

    def _stream(
        self,
        name: str,
        ask: Callable[[ollama.AsyncClient], Awaitable[AsyncIterator[T]]],
        token: CancelToken,
        client_class: type[ollama.AsyncClient] = ollama.AsyncClient,
    ) -> Generator[T, None, None]:
        """Yield what the server streams; stop it by closing its connection."""

        async def messages() -> AsyncGenerator[T, None]:
            timeout = httpx.Timeout(self._timeout_seconds, read=SILENCE_SECONDS)
            async with client_class(
                self.host, timeout=timeout, verify=self._ssl, trust_env=self._trust_env
            ) as client:
                answer = await ask(client)
                # The client's streams are generators, which it types as mere iterators.
                async with aclosing(cast("AsyncGenerator[T, None]", answer)):
                    async for message in answer:
                        yield message

        with translated(self.host, name):
            yield from iterate(messages(), token, self._probe)

    async def _probe(self) -> None:
        """Raise where the server does not answer; a busy one has some time."""
        timeout = max(self._timeout_seconds, PROBE_SECONDS)
        async with ollama.AsyncClient(
            self.host, timeout=timeout, verify=self._ssl, trust_env=self._trust_env
        ) as client:
            with suppress(ollama.ResponseError):  # an answer too
                await client.ps()

    @contextmanager
    def _client(self, name: str | None = None) -> Iterator[ollama.Client]:
        """Open a client for calls about the model of that name."""
        with (
            translated(self.host, name),
            ollama.Client(
                self.host,
                timeout=self._timeout_seconds,
                verify=self._ssl,
                trust_env=self._trust_env,
            ) as client,
        ):
            yield client


def _named(name: str, models: list[OllamaModel]) -> OllamaModel | None:
    wanted = full_name(name).lower()
    return next((model for model in models if full_name(model.name).lower() == wanted), None)


def _is_loopback(host: str) -> bool:
    name = urlsplit(host if "://" in host else f"//{host}").hostname or "localhost"
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"
