"""Speech recognition on transformers by models that spell what they hear (CTC), as Wav2Vec2.

Long sound is heard in chunks that overlap, as transformers' own pipeline does: of each chunk the
edges, where the model hears only half of what is said, are left to its neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import torch

from shared.errors import InvalidInputError
from shared.tasks import AsrOptions, Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import Forward, TransformersModel
from workers.inference.handlers.audio import AudioHandler, features_of, sound_metadata
from workers.inference.media import DecodedAudio

#: The pipeline's own overlap is a sixth of its chunk at each side.
CHUNK_SECONDS, OVERLAP_SECONDS = 30.0, 5.0
#: Options that a model without a decoder can honour.
_HONOURED = {"return_timestamps", "task"}


@dataclass(frozen=True)
class _Chunk:
    """A part of the sound, in samples, and how much of it belongs to its neighbours."""

    start: int
    stop: int
    left: int
    right: int


@dataclass(frozen=True)
class _Hearing(Forward):
    """The chunks of a sound, and the samples that one of the model's outputs stands for."""

    sound: DecodedAudio
    chunks: tuple[_Chunk, ...]
    ratio: int


class AsrHandler(AudioHandler):
    """What all models share that write down what is said."""

    options_model: ClassVar[type[Options]] = AsrOptions

    @staticmethod
    def options(call: InferenceCall) -> AsrOptions:
        """Return the options as the model that they were parsed by."""
        assert isinstance(call.options, AsrOptions)  # noqa: S101 - parsed by options_model
        return call.options


class CtcHandler(AsrHandler):
    """Gives the text that the model's most likely token at each moment spells."""

    def preprocess(self, model: TransformersModel, call: InferenceCall) -> _Hearing:
        """Decode the sound, and cut it into chunks; their features come when they are heard."""
        _check(self.options(call), model.processor.tokenizer)
        extractor = model.processor.feature_extractor
        sound = self.hear(extractor, call)
        ratio = getattr(model.model.config, "inputs_to_logits_ratio", None)
        chunks = tuple(_chunks(len(sound.waveform), extractor.sampling_rate, ratio))

        def batches() -> Iterator[dict[str, torch.Tensor]]:
            for number, chunk in enumerate(chunks):
                call.on_progress(number, len(chunks), "chunks", "")
                part = sound.waveform[chunk.start : chunk.stop]
                yield features_of(extractor, part, return_attention_mask=True)

        return _Hearing(
            batches=batches(),
            keep=lambda output: output.logits[0].argmax(-1).cpu(),
            sound=sound,
            chunks=chunks,
            ratio=ratio or 1,
        )

    def postprocess(
        self, model: TransformersModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Join what was heard in each chunk, and read it."""
        call.on_progress(len(inputs.chunks), len(inputs.chunks), "chunks", "")
        pairs = zip(inputs.chunks, output, strict=True)
        ids = torch.cat([_own(ids, chunk, inputs.ratio) for chunk, ids in pairs]).tolist()
        tokenizer = model.processor.tokenizer
        result: dict[str, Any] = {"text": tokenizer.decode(ids)}
        if kind := self.options(call).return_timestamps:
            second = inputs.sound.sampling_rate / inputs.ratio
            result["chunks"] = _timed(tokenizer, ids, str(kind), second)
        if call.on_token is not None and result["text"]:
            call.on_token(result["text"])
        spelled = [token for token, _ in groupby(ids) if token != tokenizer.pad_token_id]
        return result | {
            "metadata": {
                **sound_metadata(inputs.sound),
                "output_tokens": len(spelled),
                "chunks": len(inputs.chunks),
            }
        }


def _check(options: AsrOptions, tokenizer: Any) -> None:
    """Refuse what a model without a decoder cannot do."""
    given = options.model_dump(exclude_none=True, exclude=_HONOURED)
    if options.task == "translate":
        given["task"] = options.task
    if given:
        name = next(iter(given))
        raise InvalidInputError(
            f"{name} is for models that generate text; this one spells what it hears",
            field=f"options.{name}",
        )
    if options.return_timestamps is True:
        raise InvalidInputError(
            'this model knows no segments; return_timestamps can be "word" or "char"',
            field="options.return_timestamps",
        )
    if options.return_timestamps and not hasattr(tokenizer, "replace_word_delimiter_char"):
        raise InvalidInputError(
            "this model's tokenizer cannot tell when a token was heard",
            field="options.return_timestamps",
        )


def _chunks(samples: int, rate: int, ratio: int | None) -> Iterator[_Chunk]:
    """Cut a sound into chunks that begin and end where the model's outputs do.

    Where it is not known how many samples an output stands for, the sound stays whole.
    """
    if ratio is None:
        yield _Chunk(0, samples, 0, 0)
        return
    size = round(CHUNK_SECONDS * rate / ratio) * ratio
    overlap = round(OVERLAP_SECONDS * rate / ratio) * ratio
    for start in range(0, samples, size - 2 * overlap):
        stop = min(start + size, samples)
        left = overlap if start else 0
        if stop == samples:
            yield _Chunk(start, stop, left, 0)
            return
        yield _Chunk(start, stop, left, overlap)


def _own(ids: torch.Tensor, chunk: _Chunk, ratio: int) -> torch.Tensor:
    """Return what a chunk heard without what it leaves to its neighbours."""
    samples = chunk.stop - chunk.start
    outputs = round(samples / ratio) if chunk.left or chunk.right else len(ids)
    left, right = (round(x / samples * outputs) for x in (chunk.left, chunk.right))
    return ids[left : outputs - right]


def _timed(tokenizer: Any, ids: list[int], kind: str, second: float) -> list[dict[str, Any]]:
    """Return words or characters with the seconds between which each was heard."""
    offsets = tokenizer.decode(ids, output_char_offsets=True, output_word_offsets=kind == "word")
    return [
        {
            "text": offset[kind],
            "timestamp": [offset["start_offset"] / second, offset["end_offset"] / second],
        }
        for offset in offsets[f"{kind}_offsets"]
    ]
