"""What all tasks share whose model generates tokens: from options to ``generate``, and back."""

import copy
import secrets
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.configuration_utils import GenerationMode

from shared.errors import InvalidInputError
from shared.tasks import GenerationOptions, Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import Generation, TransformersModel
from workers.inference.handlers.base import BaseModelHandler
from workers.inference.handlers.streaming import Stopper, TextStream, cut, decode
from workers.inference.handlers.thinking import Thoughts

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
class Prompt:
    """A task's input as the model takes it."""

    inputs: Mapping[str, torch.Tensor]
    #: Tokens that ``generate`` returns before the answer.
    tokens: int
    #: The request's field that is to blame if there are too many of them.
    source: str
    #: What the result says of the input.
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: The answer ends before the first of these too, although the model may go on after it.
    ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerGeneration(Generation):
    """A generation and what its result is made from."""

    prompt_tokens: int = 0
    limit: int = 0
    #: What the text is cut at.
    stops: tuple[str, ...] = ()
    stream: TextStream | None = None
    #: How its thoughts are told from the answer; None where the model has no tokens for that.
    thoughts: Thoughts | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a model generated."""

    text: str
    ids: list[int]
    #: ``stop`` or ``length``.
    finish_reason: str
    #: What it thought before it answered.
    thinking: str = ""


class GeneratingHandler(BaseModelHandler[TransformersModel]):
    """Gives the tokens that ``model.generate`` gives for the same weights, inputs and options."""

    options_model: ClassVar[type[Options]] = GenerationOptions
    #: The answer's name in the result.
    answer_name: ClassVar[str] = "generated_text"

    @abstractmethod
    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Turn the task's input into the model's."""

    def preprocess(self, model: TransformersModel, call: InferenceCall) -> Any:
        """Encode, and settle every parameter that the request leaves open."""
        return self.generation(model, call, self.encode(model, call))

    def postprocess(
        self, model: TransformersModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Return the answer without the prompt, and how it came to its end."""
        answer = answer_of(model, call, inputs, output)
        return {
            self.answer_name: answer.text,
            "metadata": {
                **inputs.metadata,
                "input_tokens": inputs.prompt_tokens,
                "output_tokens": len(answer.ids),
                "finish_reason": answer.finish_reason,
                "seed": inputs.seed,
                **({"thinking": answer.thinking} if answer.thinking else {}),
            },
        }

    def generation(
        self,
        model: TransformersModel,
        call: InferenceCall,
        prompt: Prompt,
        *,
        seed: int | None = None,
        lead: str = "",
    ) -> AnswerGeneration:
        """Return the generation for a prompt; ``lead`` is streamed before its text."""
        options = call.options
        assert isinstance(options, GenerationOptions)  # noqa: S101 - parsed by options_model
        tokenizer = tokenizer_of(model)
        thoughts = Thoughts.of(tokenizer, prompt.inputs.get("input_ids"))
        limit = self._limit(model, options, prompt, thoughts)
        stops = _stops(options)
        given = _config(options, max_new_tokens=limit)
        mode, samples = _mode(model, given)
        cuts = (*stops, *prompt.ends)
        stream = None
        if call.on_token:
            stream = TextStream(tokenizer, cuts, call.on_token, lead=lead, thoughts=thoughts)
        stopper = Stopper(tokenizer, prompt.tokens, stops, call.token, thoughts)
        return AnswerGeneration(
            inputs=dict(prompt.inputs),
            config=given,
            seed=(_seed(options) if seed is None else seed) if samples else None,
            stopping=StoppingCriteriaList([stopper]),
            streamer=stream if mode in _STREAMED else None,
            prompt_tokens=prompt.tokens,
            limit=limit,
            stops=cuts,
            stream=stream,
            thoughts=thoughts,
            metadata=prompt.metadata,
        )

    def _limit(
        self,
        model: TransformersModel,
        options: GenerationOptions,
        prompt: Prompt,
        thoughts: Thoughts | None,
    ) -> int:
        """Return how many tokens may be generated; never more than the model has positions for."""
        context = getattr(
            model.model.config.get_text_config(decoder=True), "max_position_embeddings", None
        )
        if context is not None and prompt.tokens >= context:
            raise InvalidInputError(
                f"the prompt has {prompt.tokens} tokens, and the model takes fewer than {context}",
                field=prompt.source,
                code="prompt_too_long",
            )
        thinks = thoughts is not None and not thoughts.closed
        wanted = options.max_new_tokens or self.settings.inference.default_tokens(thinks=thinks)
        if options.max_length is not None and options.max_new_tokens is None:
            wanted = options.max_length - prompt.tokens
        if wanted < 1:
            raise InvalidInputError(
                f"the prompt has {prompt.tokens} tokens, which leaves none of max_length",
                field="options.max_length",
            )
        return wanted if context is None else min(wanted, context - prompt.tokens)


def answer_of(
    model: TransformersModel, call: InferenceCall, inputs: AnswerGeneration, output: Any
) -> Answer:
    """Return what was generated, cut where it ends; what of it was not streamed yet is now."""
    ids = output[0, inputs.prompt_tokens :].tolist()
    tokenizer = tokenizer_of(model)
    thought, said = inputs.thoughts.split(ids) if inputs.thoughts else ([], ids)
    whole = decode(tokenizer, said)
    text = cut(whole, inputs.stops)
    if inputs.stream is not None:
        call.token.check()
        inputs.stream.finish(text)
    ended = text != whole or len(ids) < inputs.limit or ids[-1] in end_tokens(model)
    thinking = decode(tokenizer, thought).strip() if thought else ""
    return Answer(text, ids, "stop" if ended else "length", thinking)


def tokenizer_of(model: TransformersModel) -> Any:
    """Return the tokenizer, which for models that see or hear is a part of the processor."""
    return getattr(model.processor, "tokenizer", model.processor)


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


def end_tokens(model: TransformersModel) -> set[int]:
    """Return the tokens that end the model's answers."""
    ends = model.model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
