"""Text generation on transformers: a prompt or a chat in, the answer out."""

import copy
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.configuration_utils import GenerationMode

from shared.errors import InvalidInputError
from shared.tasks import GenerationOptions, Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import Generation, TransformersModel
from workers.inference.handlers.base import BaseModelHandler
from workers.inference.handlers.streaming import Stopper, TextStream, cut, decode

_FIELD = "data.inputs"
#: Options that have the same name and meaning in transformers.
_SAME = frozenset(
    {
        "do_sample",
        "early_stopping",
        "length_penalty",
        "num_beams",
        "repetition_penalty",
        "temperature",
        "top_k",
        "top_p",
    }
)
#: The modes in which transformers hands out tokens as they come; beams are known at the end.
_STREAMED = {GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE}


@dataclass(frozen=True)
class TextInputs(Generation):
    """A generation and what its result is made from."""

    prompt_tokens: int = 0
    limit: int = 0
    stops: tuple[str, ...] = ()
    stream: TextStream | None = None


class TextGenerationHandler(BaseModelHandler[TransformersModel]):
    """Gives the tokens that ``model.generate`` gives for the same weights, inputs and options."""

    options_model: ClassVar[type[Options]] = GenerationOptions

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

    def preprocess(self, model: TransformersModel, call: InferenceCall) -> TextInputs:
        """Tokenize, and settle every parameter that the request leaves open."""
        options = call.options
        assert isinstance(options, GenerationOptions)  # noqa: S101 - parsed by options_model
        encoded = _encode(model.processor, call.data["inputs"])
        prompt_tokens = int(encoded["input_ids"].shape[1])
        limit = self._limit(model, options, prompt_tokens)
        stops = _stops(options)
        given = _config(options, max_new_tokens=limit)
        mode, samples = _mode(model, given)
        stream = TextStream(model.processor, stops, call.on_token) if call.on_token else None
        stopper = Stopper(model.processor, prompt_tokens, stops, call.token)
        return TextInputs(
            inputs=encoded,
            config=given,
            seed=_seed(options) if samples else None,
            stopping=StoppingCriteriaList([stopper]),
            streamer=stream if mode in _STREAMED else None,
            prompt_tokens=prompt_tokens,
            limit=limit,
            stops=stops,
            stream=stream,
        )

    def postprocess(
        self, model: TransformersModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Return the answer without the prompt, and how it came to its end."""
        ids = output[0, inputs.prompt_tokens :].tolist()
        whole = decode(model.processor, ids)
        text = cut(whole, inputs.stops)
        if inputs.stream is not None:
            call.token.check()
            inputs.stream.finish(text)
        ended = text != whole or len(ids) < inputs.limit or ids[-1] in _end_tokens(model)
        return {
            "generated_text": text,
            "metadata": {
                "input_tokens": inputs.prompt_tokens,
                "output_tokens": len(ids),
                "finish_reason": "stop" if ended else "length",
                "seed": inputs.seed,
            },
        }

    def _limit(
        self, model: TransformersModel, options: GenerationOptions, prompt_tokens: int
    ) -> int:
        """Return how many tokens may be generated; never more than the model has positions for."""
        context = getattr(
            model.model.config.get_text_config(decoder=True), "max_position_embeddings", None
        )
        if context is not None and prompt_tokens >= context:
            raise InvalidInputError(
                f"the prompt has {prompt_tokens} tokens, and the model takes fewer than {context}",
                field=_FIELD,
            )
        wanted = options.max_new_tokens or self.settings.inference.max_new_tokens
        if options.max_length is not None and options.max_new_tokens is None:
            wanted = options.max_length - prompt_tokens
        if wanted < 1:
            raise InvalidInputError(
                f"the prompt has {prompt_tokens} tokens, which leaves none of max_length",
                field="options.max_length",
            )
        return wanted if context is None else min(wanted, context - prompt_tokens)


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


def _config(options: GenerationOptions, max_new_tokens: int) -> GenerationConfig:
    """Map what the request says; what it leaves open follows the model's own configuration."""
    given = options.model_dump(include=set(_SAME), exclude_none=True)
    if options.temperature == 0:  # as most other servers take it; transformers refuses it
        if options.do_sample:
            raise InvalidInputError(
                "a temperature of 0 cannot be sampled with", field="options.temperature"
            )
        given = {name: x for name, x in given.items() if name != "temperature"}
        given["do_sample"] = False
    try:
        return GenerationConfig(  # type: ignore[no-untyped-call]
            **given,
            max_new_tokens=max_new_tokens,
            num_return_sequences=1,
            return_dict_in_generate=False,
        )
    except ValueError as error:
        raise InvalidInputError(f"the options do not work: {error}", field="options") from None


def _mode(model: TransformersModel, given: GenerationConfig) -> tuple[GenerationMode, bool]:
    """Return how ``generate`` will search, and whether it draws random numbers."""
    effective = copy.deepcopy(given)
    own = model.model.generation_config.to_dict()
    effective.update(**own, defaults_only=True)  # type: ignore[no-untyped-call]
    return effective.get_generation_mode(), bool(effective.do_sample)


def _seed(options: GenerationOptions) -> int:
    """Return the seed of the request, else a new one, small enough for every JSON reader."""
    return secrets.randbits(32) if options.seed is None else options.seed


def _stops(options: GenerationOptions) -> tuple[str, ...]:
    stops = (options.stop,) if isinstance(options.stop, str) else options.stop or ()
    if not all(stops):
        raise InvalidInputError("a stop string must not be empty", field="options.stop")
    return stops


def _end_tokens(model: TransformersModel) -> set[int]:
    """Return the tokens that end the model's answers."""
    ends = model.model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
