"""The engine of models that an Ollama server runs.

Loading is left to the server, which loads a model with the first request for it, inside a stream
that can be called off.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import structlog

from shared.cancellation import CancelToken
from shared.errors import (
    ConflictError,
    InvalidInputError,
    LifecycleError,
    ModelLoadError,
    NotFoundError,
)
from shared.models import ModelVersion
from shared.ollama import (
    Ending,
    LoadedOllamaModel,
    Messages,
    OllamaModel,
    OllamaSampling,
    OllamaServer,
    full_name,
    prompt_too_long,
)
from shared.settings import Settings
from shared.tasks import Task
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource, Whereabouts
from workers.inference.engines.ollama_memory import OllamaMemory

log = structlog.get_logger()

#: The ``keep_alive`` of a model that stays in the server's memory.
FOR_EVER = -1
#: The list of the server's models is as good as new for so long.
_LIST_SECONDS = 1.0


@dataclass(frozen=True)
class ModelContent:
    """What a name stood for on the server when it was last looked at."""

    #: Of the manifest.
    digest: str
    #: Of the GGUF file; None where the server does not name it.
    gguf_sha256: str | None
    #: Whether it thinks before it answers where a request does not say.
    thinks: bool
    #: Tokens that it was trained for.
    context_length: int | None


@dataclass
class ServedModel(LoadedModel):
    """A model of the server."""

    version: ModelVersion
    #: With its tag.
    ollama_name: str
    #: None while the server does not have it.
    content: ModelContent | None
    #: The context that the last request asked for; None if it was the server's default.
    num_ctx: int | None = None

    @property
    def digest(self) -> str | None:
        """The digest of its manifest, where the server has it."""
        return self.content.digest if self.content else None

    def shares_with(self, other: "ServedModel") -> bool:
        """Return whether both are one model in the server's memory."""
        files = {each.content.gguf_sha256 if each.content else None for each in (self, other)}
        return self.ollama_name == other.ollama_name or (len(files) == 1 and None not in files)


@dataclass(frozen=True)
class OllamaPrompt:
    """What the handler hands to the engine."""

    #: A chat goes through the model's own template; a text too, as the user's only message.
    inputs: str | Messages
    sampling: OllamaSampling


@dataclass(frozen=True)
class OllamaAnswer:
    """What the engine hands back."""

    text: str
    thinking: str
    ending: Ending
    #: What answered.
    content: ModelContent
    #: Tokens of prompt and answer that the model was loaded for; None if it is unloaded already.
    context_length: int | None


class OllamaEngine(BaseEngine[ServedModel]):
    """Asks the Ollama server of the settings."""

    name: ClassVar[str] = "ollama"
    supported_tasks: ClassVar[frozenset[Task]] = frozenset({Task.TEXT_GENERATION})
    is_remote: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        """Connect to nothing yet."""
        super().__init__(settings)
        self._server = OllamaServer(settings.ollama)
        self._memory = OllamaMemory(self._server.loaded)
        self._served_lock = threading.Lock()
        #: What is loaded here, by the version's name and number.
        self._served: dict[tuple[str, str], ServedModel] = {}
        self._list_lock = threading.Lock()
        self._list: tuple[float, dict[str, OllamaModel]] = (float("-inf"), {})

    def check_model(self, source: ModelSource) -> None:
        """Refuse a version that does not say which of Ollama's models it is."""
        _ollama_name(source)

    def estimate_bytes(self, source: ModelSource) -> int:  # noqa: ARG002 - the engine's contract
        """Return 0: the memory is the server's, perhaps on another host, and it keeps the books."""
        return 0

    def load_model(self, source: ModelSource) -> ServedModel:
        """Look the model up, unless it may be pulled when it is asked for.

        The server loads it with the first request for it.
        """
        name, content = _ollama_name(source), None
        try:
            listed = self._server.model(name)
            name, content = listed.name, self._content(listed)
        except NotFoundError:
            if not self.settings.ollama.auto_pull:
                raise
        model = ServedModel(
            architecture=None,
            tasks=self.supported_tasks,
            size_bytes=0,
            device=f"ollama:{self._server.host}",
            version=source.version,
            ollama_name=name,
            content=content,
        )
        if content is not None:
            self._check_content(model, content)
        with self._served_lock:
            self._served[source.version.name, source.version.version] = model
        return model

    def infer(self, model: ServedModel, inputs: Any, call: InferenceCall) -> OllamaAnswer:
        """Generate the answer to an ``OllamaPrompt``; pull the model first if it is to be."""
        if not isinstance(inputs, OllamaPrompt):
            raise TypeError(f"the Ollama engine does not run {type(inputs).__name__}")
        if call.pinned:
            inputs = replace(inputs, sampling=replace(inputs.sampling, keep_alive=FOR_EVER))
        try:
            return self._answer(model, inputs, call)
        except NotFoundError:
            if not self.settings.ollama.auto_pull:
                raise

        def report(completed: int, total: int | None, message: str) -> None:
            call.on_progress(completed, total, "bytes", message)

        self._server.pull(model.ollama_name, call.token, report)
        self._forget_list()
        return self._answer(model, inputs, call)

    def unload_model(self, model: ServedModel) -> None:
        """Have the server free the model's memory, unless another version here is the same there.

        A server that cannot be asked frees it in time.
        """
        with self._served_lock:
            self._served = {key: each for key, each in self._served.items() if each is not model}
            if any(each.shares_with(model) for each in self._served.values()):
                return
        try:
            self._server.unload(model.ollama_name)
        except LifecycleError as error:
            log.warning("ollama_unload_failed", model=model.ollama_name, reason=error.detail)

    def warm(self, model: ServedModel, call: InferenceCall) -> None:
        """Have the server load the model, and keep it if it has priority."""
        stay = FOR_EVER if call.pinned else self.settings.ollama.keep_alive
        options = host_options(self.settings, model.content)
        sampling = OllamaSampling(options=options, keep_alive=stay)
        with closing(self._server.generate(model.ollama_name, "", sampling, call.token)) as chunks:
            for _ in chunks:
                pass

    def whereabouts(
        self, model: ServedModel, token: CancelToken | None = None
    ) -> Whereabouts | None:
        """Return where the server has the model, by what it tells of its memory."""
        loaded = self._memory.loaded(token)
        if loaded is None:
            return None
        if (found := self._found(model, loaded)) is not None:
            return Whereabouts(True, found.size_bytes, _device(found))
        # It may be about to be loaded: the next question asks the server again.
        self._memory.forget()
        return Whereabouts(False)

    def health(self) -> dict[str, Any]:
        """Return the server's address; whether it answers is too slow a question for heartbeats."""
        return {"host": self._server.host}

    # ── what answers ─────────────────────────────────────────────────────────

    def _current(self, model: ServedModel) -> ModelContent:
        """Return what the model's name stands for now, if the version may be served with it."""
        listed = self._listed(model.ollama_name)
        if model.content is None or model.content.digest != listed.digest:
            model.content = self._content(listed)
        self._check_content(model, model.content)
        return model.content

    def _listed(self, name: str) -> OllamaModel:
        """Return the server's entry for a model; one request a second serves all who ask."""
        with self._list_lock:
            asked_at, models = self._list
            if time.monotonic() - asked_at > _LIST_SECONDS:
                asked_at = time.monotonic()
                models = {full_name(each.name).lower(): each for each in self._server.models()}
                self._list = (asked_at, models)
        return models.get(full_name(name).lower()) or self._server.model(name)

    def _forget_list(self) -> None:
        with self._list_lock:
            self._list = (float("-inf"), {})

    def _content(self, listed: OllamaModel) -> ModelContent:
        details = self._server.show(listed.name)
        return ModelContent(
            digest=listed.digest,
            gguf_sha256=details.gguf_sha256,
            thinks="thinking" in details.capabilities,
            context_length=details.context_length,
        )

    def _check_content(self, model: ServedModel, content: ModelContent) -> None:
        """Raise if the name stands for another model than the one that was registered.

        The GGUF file says which model it is; the manifest's digest, which differs between hosts,
        does only where one of the two files is not known.
        """
        tags = model.version.tags
        registered, now = tags.get("gguf_sha256"), content.gguf_sha256
        if registered is None or now is None:
            registered, now = tags.get("revision"), content.digest
        if registered in {None, now} or self.settings.ollama.replaced_models == "serve":
            return
        raise ConflictError(
            f"Ollama's model {model.ollama_name!r} has been replaced since version "
            f"{model.version.version} of {model.version.name!r} was registered: that has the "
            f"digest {registered}, Ollama's has {now}. Register it again, bring the old one back, "
            "or set OLLAMA_REPLACED_MODELS=serve",
            code="model_replaced",
        )

    # ── the answer ───────────────────────────────────────────────────────────

    def _answer(
        self, model: ServedModel, prompt: OllamaPrompt, call: InferenceCall
    ) -> OllamaAnswer:
        content = self._current(model)
        try:
            text, thinking, ending = self._generated(model.ollama_name, prompt, call)
        except InvalidInputError as error:
            if error.detail == prompt_too_long(None, None).detail:
                length = self._context_length(model, prompt, call.token)
                raise prompt_too_long(None, length) from error
            raise
        length = self._context_length(model, prompt, call.token)
        return OllamaAnswer(text, thinking, ending, content, length)

    def _generated(
        self, name: str, prompt: OllamaPrompt, call: InferenceCall
    ) -> tuple[str, str, Ending]:
        if isinstance(prompt.inputs, str):
            stream = self._server.generate(name, prompt.inputs, prompt.sampling, call.token)
        else:
            stream = self._server.chat(name, prompt.inputs, prompt.sampling, call.token)
        text, thinking, ending = "", "", None
        with closing(stream) as chunks:
            for chunk in chunks:
                if chunk.thinking and call.on_thought is not None:
                    call.on_thought(chunk.thinking)
                if chunk.text and call.on_token is not None:
                    call.on_token(chunk.text)
                text, thinking, ending = text + chunk.text, thinking + chunk.thinking, chunk.ending
        assert ending is not None  # noqa: S101 - the server raises for a stream without one
        return text, thinking, ending

    def _context_length(
        self, model: ServedModel, prompt: OllamaPrompt, token: CancelToken
    ) -> int | None:
        """Return the context that the server has loaded the model for; None if it does not say."""
        wanted = prompt.sampling.options.get("num_ctx")
        if wanted != model.num_ctx:  # the server has loaded it again
            model.num_ctx = wanted
            self._memory.forget()
        for _ in range(2):
            loaded = self._memory.loaded(token)
            if loaded is None:
                return None
            if (found := self._found(model, loaded)) is not None:
                return found.context_length
            self._memory.forget()
        return None

    def _found(
        self, model: ServedModel, loaded: Sequence[LoadedOllamaModel]
    ) -> LoadedOllamaModel | None:
        """Return a model's entry among those in the server's memory."""
        with self._served_lock:
            same = [model, *(each for each in self._served.values() if each.shares_with(model))]
        names, digests = {each.ollama_name for each in same}, {each.digest for each in same}
        # Of names that share a file, the server tells the one that it was loaded under.
        return next((x for x in loaded if x.name in names or x.digest in digests), None)


def host_options(settings: Settings, content: ModelContent | None) -> dict[str, Any]:
    """Return the options of the settings, which are those that a model is loaded with."""
    options = settings.ollama.options.model_dump(exclude_none=True)
    own = content.context_length if content else None
    if own is not None and "num_ctx" in options:
        options["num_ctx"] = min(options["num_ctx"], own)
    return options


def _device(loaded: LoadedOllamaModel) -> str:
    if loaded.vram_bytes <= 0:
        return "cpu"
    return "gpu" if loaded.vram_bytes >= loaded.size_bytes else "cpu+gpu"


def _ollama_name(source: ModelSource) -> str:
    name = source.version.tags.get("ollama_model_name")
    if not name:
        raise ModelLoadError(
            f"version {source.version.version} of {source.version.name} has no tag "
            "ollama_model_name; register it with POST /models/register_ollama"
        )
    return name
