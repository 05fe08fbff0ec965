"""Text generation on transformers: a prompt or a chat in, the answer out."""

from collections.abc import Mapping
from typing import Any

import torch
from jinja2 import TemplateError

from shared.errors import InvalidInputError
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.generation import GeneratingHandler, Prompt

_FIELD = "data.inputs"


class TextGenerationHandler(GeneratingHandler):
    """Takes a text as it is, and a chat through the model's template."""

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``inputs``: a text, or a list of messages with a role and a content."""
        if unknown := sorted(data.keys() - {"inputs"}):
            raise InvalidInputError(
                f"text generation takes 'inputs' and not {unknown[0]!r}", field=f"data.{unknown[0]}"
            )
        inputs = data.get("inputs")
        if isinstance(inputs, str):
            valid = bool(inputs)
        else:
            valid = (
                isinstance(inputs, list | tuple) and bool(inputs) and all(map(_is_message, inputs))
            )
        if not valid:
            raise InvalidInputError(
                "inputs must be a text, or a list of messages with a 'role' and a 'content', "
                "and not empty",
                field=_FIELD,
            )

    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Tokenize."""
        encoded = _encode(model.processor, call.data["inputs"])
        return Prompt(encoded, int(encoded["input_ids"].shape[1]), _FIELD)


def _is_message(message: Any) -> bool:
    """Return whether it is a message of a chat, as chat templates know it."""
    return isinstance(message, dict) and all(
        isinstance(message.get(key), str) for key in ("role", "content")
    )


def _encode(tokenizer: Any, inputs: Any) -> dict[str, torch.Tensor]:
    """Tokenize a text as it is, and a chat through the model's template."""
    if isinstance(inputs, str):
        encoded = tokenizer(inputs, return_tensors="pt")
    elif tokenizer.chat_template is None:
        raise InvalidInputError(
            "the model has no chat template: give inputs as a text", field=_FIELD
        )
    else:
        try:
            encoded = tokenizer.apply_chat_template(
                list(inputs), add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        except TemplateError as error:
            raise InvalidInputError(
                f"the model's chat template refuses the messages: {error}", field=_FIELD
            ) from None
    if encoded["input_ids"].shape[1] == 0:
        raise InvalidInputError("inputs have no tokens", field=_FIELD)
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}
