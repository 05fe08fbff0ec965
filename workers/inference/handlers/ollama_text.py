"""Text generation on Ollama: from a task's input and options to Ollama's, and back."""

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

from shared.errors import InvalidInputError
from shared.ollama import Ending, OllamaSampling
from shared.tasks import OLLAMA_NAMES, OllamaOptions, Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.ollama_engine import (
    ModelContent,
    OllamaPrompt,
    ServedModel,
    host_options,
)
from workers.inference.handlers.base import BaseModelHandler

_FIELD = "data.inputs"
_ROLES = ("system", "user", "assistant")
#: Options that are not among the ``options`` of Ollama's requests, or mean others there.
_APART = {"do_sample", "think", "format"}
_SEED_BITS = 31


class OllamaTextHandler(BaseModelHandler[ServedModel]):
    """Maps the task's input and options to Ollama's, and its answer to the task's result."""

    options_model: ClassVar[type[Options]] = OllamaOptions

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``inputs``: a text, or a list of messages with a role and a content."""
        for name in ("tools", "images"):
            if name in data:
                raise InvalidInputError(
                    f"{name} are not supported for models of Ollama: they take texts only",
                    field=f"data.{name}",
                )
        if unknown := sorted(data.keys() - {"inputs"}):
            raise InvalidInputError(
                f"text generation takes 'inputs' and not {unknown[0]!r}", field=f"data.{unknown[0]}"
            )
        inputs = data.get("inputs")
        if isinstance(inputs, list | tuple) and inputs:
            for place, message in enumerate(inputs):
                _check_message(place, message)
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
        return OllamaPrompt(call.data["inputs"], self._sampling(options, model.content))

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
            "ollama_digest": output.content.digest,
            "gguf_sha256": output.content.gguf_sha256,
            "context_length": output.context_length,
            "ollama_load_seconds": ending.load_seconds,
            "prompt_seconds": ending.prompt_seconds,
            "generation_seconds": ending.answer_seconds,
        }
        if output.thinking:
            metadata["thinking"] = output.thinking
        if ending.reason == "length" and not output.text:
            spent = "on thoughts " if output.thinking else ""
            metadata["note"] = (
                f"all {ending.output_tokens} tokens were used up {spent}before the answer began: "
                "raise num_predict, or num_ctx if the context is full"
            )
        return {"generated_text": output.text, "metadata": metadata}

    def _sampling(self, options: OllamaOptions, content: ModelContent | None) -> OllamaSampling:
        own = content.context_length if content else None
        _check_context(options, own)
        thinks = content is None or content.thinks
        if options.think and not thinks:
            raise InvalidInputError("the model does not think", field="options.think")
        given = options.model_dump(exclude_none=True, exclude=_APART)
        named = host_options(self.settings, content) | {
            OLLAMA_NAMES.get(name, name): value for name, value in given.items()
        }
        # Ollama's own default is no limit, and that a model that can think does.
        thinks = thinks and options.think is not False
        named.setdefault("num_predict", self.settings.inference.default_tokens(thinks=thinks))
        named.setdefault("seed", secrets.randbits(_SEED_BITS))
        if options.do_sample is False:
            named["temperature"] = 0.0
        if options.stop is not None:
            named["stop"] = [options.stop] if isinstance(options.stop, str) else list(options.stop)
            if not all(named["stop"]):
                raise InvalidInputError("a stop string must not be empty", field="options.stop")
        return OllamaSampling(
            options=named,
            keep_alive=self.settings.ollama.keep_alive,
            think=options.think,
            format=options.format,
        )


def _check_context(options: OllamaOptions, own: int | None) -> None:
    """Refuse to look at more tokens than the model was trained for."""
    for name in ("num_ctx", "repeat_last_n"):
        wanted = getattr(options, name)
        if own is not None and wanted is not None and wanted > own:
            raise InvalidInputError(
                f"{name} is at most {own}, the context that the model was trained for",
                field=f"options.{name}",
            )


def _check_message(place: int, message: Any) -> None:
    """Refuse a message of which something would be lost on the way."""
    field = f"{_FIELD}.{place}"
    if not isinstance(message, dict):
        raise InvalidInputError("a message is an object with 'role' and 'content'", field=field)
    if message.get("role") not in _ROLES:
        raise InvalidInputError(
            f"the role {message.get('role')!r} is not supported for models of Ollama; there are: "
            f"{', '.join(_ROLES)}",
            field=f"{field}.role",
        )
    if unknown := sorted(map(str, message.keys() - {"role", "content"})):
        raise InvalidInputError(
            f"{', '.join(unknown)} in a message are not supported for models of Ollama: they take "
            "a role and a text",
            field=f"{field}.{unknown[0]}",
        )
    if not isinstance(message.get("content"), str):
        raise InvalidInputError("the content of a message is a text", field=f"{field}.content")
