"""Models that an Ollama server runs: the engine, and its handler of text generation.

Loading is left to the server, which loads a model with the first request for it, inside a stream
that can be called off.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog

from shared.errors import InvalidInputError, LifecycleError, ModelLoadError, NotFoundError
from shared.ollama import Ending, Messages, OllamaSampling, OllamaServer
from shared.settings import Settings
from shared.tasks import OLLAMA_NAMES, OllamaOptions, Options, Task
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.handlers.base import BaseModelHandler

log = structlog.get_logger()

_FIELD = "data.inputs"
_ROLES = ("system", "user", "assistant")
#: Options that are not among the ``options`` of Ollama's requests, or mean others there.
_APART = {"do_sample", "keep_alive", "think", "format"}


@dataclass
class ServedModel(LoadedModel):
    """A model of the server."""

    #: With its tag.
    ollama_name: str
    #: Whether it thinks before it answers where a request does not say; None if nobody knows.
    thinks: bool | None


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


class OllamaEngine(BaseEngine[ServedModel]):
    """Asks the Ollama server of the settings."""

    name: ClassVar[str] = "ollama"
    supported_tasks: ClassVar[frozenset[Task]] = frozenset({Task.TEXT_GENERATION})

    def __init__(self, settings: Settings) -> None:
        """Connect to nothing yet."""
        super().__init__(settings)
        self._server = OllamaServer(settings.ollama)

    def check_model(self, source: ModelSource) -> None:
        """Refuse a version that does not say which of Ollama's models it is."""
        _ollama_name(source)

    def estimate_bytes(self, source: ModelSource) -> int:  # noqa: ARG002 - the engine's contract
        """Return 0: the memory is the server's, perhaps on another host, and it keeps the books."""
        return 0

    def load_model(self, source: ModelSource) -> ServedModel:
        """See that the server has the model, unless it may be pulled when it is asked for."""
        name, thinks = _ollama_name(source), None
        try:
            name = self._server.model(name).name
            thinks = "thinking" in self._server.show(name).capabilities
        except NotFoundError:
            if not self.settings.ollama.auto_pull:
                raise
        return ServedModel(
            architecture=None,
            tasks=self.supported_tasks,
            size_bytes=0,
            device=f"ollama:{self._server.host}",
            ollama_name=name,
            thinks=thinks,
        )

    def infer(self, model: ServedModel, inputs: Any, call: InferenceCall) -> OllamaAnswer:
        """Generate the answer to an ``OllamaPrompt``; pull the model first if it is to be."""
        if not isinstance(inputs, OllamaPrompt):
            raise TypeError(f"the Ollama engine does not run {type(inputs).__name__}")
        try:
            return self._answer(model.ollama_name, inputs, call)
        except NotFoundError:
            if not self.settings.ollama.auto_pull:
                raise

        def report(completed: int, total: int | None, message: str) -> None:
            call.on_progress(completed, total, "bytes", message)

        self._server.pull(model.ollama_name, call.token, report)
        return self._answer(model.ollama_name, inputs, call)

    def unload_model(self, model: ServedModel) -> None:
        """Have the server free the model's memory; where it cannot be asked, it does so in time."""
        try:
            self._server.unload(model.ollama_name)
        except LifecycleError as error:
            log.warning("ollama_unload_failed", model=model.ollama_name, reason=error.detail)

    def health(self) -> dict[str, Any]:
        """Return the server's address; whether it answers is too slow a question for heartbeats."""
        return {"host": self._server.host}

    def _answer(self, name: str, prompt: OllamaPrompt, call: InferenceCall) -> OllamaAnswer:
        if isinstance(prompt.inputs, str):
            stream = self._server.generate(name, prompt.inputs, prompt.sampling, call.token)
        else:
            stream = self._server.chat(name, prompt.inputs, prompt.sampling, call.token)
        text, thinking, ending = "", "", None
        with closing(stream) as chunks:
            for chunk in chunks:
                if chunk.text and call.on_token is not None:
                    call.on_token(chunk.text)
                text, thinking, ending = text + chunk.text, thinking + chunk.thinking, chunk.ending
        assert ending is not None  # noqa: S101 - the server raises for a stream without one
        return OllamaAnswer(text, thinking, ending)


class OllamaTextHandler(BaseModelHandler[ServedModel]):
    """Maps the task's input and options to Ollama's, and its answer to the task's result."""

    options_model: ClassVar[type[Options]] = OllamaOptions

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``inputs``: a text, or a list of messages with a role and a content."""
        if unknown := sorted(data.keys() - {"inputs"}):
            raise InvalidInputError(
                f"text generation takes 'inputs' and not {unknown[0]!r}", field=f"data.{unknown[0]}"
            )
        inputs = data.get("inputs")
        if isinstance(inputs, list | tuple) and inputs and all(map(_is_message, inputs)):
            return
        if not isinstance(inputs, str) or not inputs:
            raise InvalidInputError(
                "inputs must be a text, or a list of messages with a 'role' "
                f"({', '.join(_ROLES)}) and a 'content', and not empty",
                field=_FIELD,
            )

    def preprocess(self, model: ServedModel, call: InferenceCall) -> OllamaPrompt:
        """Settle every parameter that the request leaves open and the platform bounds."""
        options = call.options
        assert isinstance(options, OllamaOptions)  # noqa: S101 - parsed by options_model
        return OllamaPrompt(call.data["inputs"], self._sampling(options, model.thinks))

    def postprocess(
        self,
        model: ServedModel,
        call: InferenceCall,  # noqa: ARG002 - the handler's contract
        inputs: Any,
        output: Any,
    ) -> dict[str, Any]:
        """Return the answer, and what Ollama tells of it."""
        ending: Ending = output.ending
        metadata = {
            "input_tokens": ending.input_tokens,
            "output_tokens": ending.output_tokens,
            "finish_reason": ending.reason,
            "seed": inputs.sampling.options.get("seed"),
            "ollama_model_name": model.ollama_name,
            "ollama_load_seconds": ending.load_seconds,
            "prompt_seconds": ending.prompt_seconds,
            "generation_seconds": ending.answer_seconds,
        }
        if output.thinking:
            metadata["thinking"] = output.thinking
        return {"generated_text": output.text, "metadata": metadata}

    def _sampling(self, options: OllamaOptions, thinks: bool | None) -> OllamaSampling:
        given = options.model_dump(exclude_none=True, exclude=_APART)
        named = {OLLAMA_NAMES.get(name, name): value for name, value in given.items()}
        # Ollama's own default is no limit, and that a model that can think does.
        thinks = thinks is not False and options.think is not False
        named.setdefault("num_predict", self.settings.inference.default_tokens(thinks=thinks))
        if options.do_sample is False:
            named["temperature"] = 0.0
        if options.stop is not None:
            named["stop"] = [options.stop] if isinstance(options.stop, str) else list(options.stop)
            if not all(named["stop"]):
                raise InvalidInputError("a stop string must not be empty", field="options.stop")
        keep_alive = options.keep_alive
        return OllamaSampling(
            options=named,
            keep_alive=self.settings.ollama.keep_alive if keep_alive is None else keep_alive,
            think=options.think,
            format=options.format,
        )


def _is_message(message: Any) -> bool:
    """Return whether it is a message without anything that would be lost on the way."""
    return (
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and message["role"] in _ROLES
        and isinstance(message["content"], str)
    )


def _ollama_name(source: ModelSource) -> str:
    name = source.version.tags.get("ollama_model_name")
    if not name:
        raise ModelLoadError(
            f"version {source.version.version} of {source.version.name} has no tag "
            "ollama_model_name; register it with POST /models/register_ollama"
        )
    return name
