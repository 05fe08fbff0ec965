"""Text generation on transformers: a prompt or a chat in, the answer out."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from jinja2 import TemplateError

from shared.errors import InvalidInputError
from shared.tasks import Options, TextOptions
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.generation import GeneratingHandler, Prompt

_FIELD = "data.inputs"
#: A text to look for in what a chat template makes of it.
_PROBE = "probe"


class TextGenerationHandler(GeneratingHandler):
    """Takes a text as it is, and a chat through the model's template."""

    options_model: ClassVar[type[Options]] = TextOptions

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
        assert isinstance(call.options, TextOptions)  # noqa: S101 - parsed by options_model
        encoded = _encode(model.processor, call.data["inputs"], call.options.think)
        return Prompt(encoded, int(encoded["input_ids"].shape[1]), _FIELD)


def _is_message(message: Any) -> bool:
    """Return whether it is a message of a chat, as chat templates know it."""
    return isinstance(message, dict) and all(
        isinstance(message.get(key), str) for key in ("role", "content")
    )


def _encode(processor: Any, inputs: Any, think: bool | None) -> dict[str, torch.Tensor]:
    """Tokenize a text as it is, and a chat through the model's template."""
    tokenizer = getattr(processor, "tokenizer", processor)
    if isinstance(inputs, str):
        if think is not None:
            raise InvalidInputError(
                "a text goes to the model as it is: give a chat for it to think or not",
                field="options.think",
            )
        encoded = tokenizer(inputs, return_tensors="pt")
    else:
        text, begun = _rendered(processor, tokenizer, list(inputs), think)
        encoded = tokenizer(text, add_special_tokens=not begun, return_tensors="pt")
    if encoded["input_ids"].shape[1] == 0:
        raise InvalidInputError("inputs have no tokens", field=_FIELD)
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def _rendered(
    processor: Any, tokenizer: Any, messages: list[Any], think: bool | None
) -> tuple[str, bool]:
    """Put a chat through the template; return whether it is then with all special tokens.

    As in transformers: a tokenizer's template brings them all, a processor's may leave out the
    first. A processor's may also take content only as a list of parts.
    """
    owner = next((x for x in (processor, tokenizer) if x.chat_template is not None), None)
    if owner is None:
        raise InvalidInputError(
            "the model has no chat template: give inputs as a text", field=_FIELD
        )
    chosen = {} if think is None else {"enable_thinking": think}
    render = partial(
        owner.apply_chat_template, tokenize=False, add_generation_prompt=True, **chosen
    )
    if processor is not tokenizer and not _takes_strings(render):
        messages = [
            message | {"content": [{"type": "text", "text": message["content"]}]}
            for message in messages
        ]
    try:
        text = str(render(messages))
    except TemplateError as error:
        raise InvalidInputError(
            f"the model's chat template refuses the messages: {error}", field=_FIELD
        ) from None
    first = tokenizer.bos_token
    return text, owner is tokenizer or (first is not None and text.startswith(first))


def _takes_strings(render: Callable[[list[Any]], Any]) -> bool:
    """Return whether a text gets through the template when it is not in a list of parts."""
    try:
        return _PROBE in render([{"role": "user", "content": _PROBE}])
    except (TemplateError, TypeError):
        return False
