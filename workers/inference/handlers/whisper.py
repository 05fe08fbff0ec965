"""Speech recognition on transformers by Whisper.

Sound longer than the model's window goes through the long-form generation of Whisper's own
``generate``: window after window, each beginning where the last one stopped to tell segments.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from shared.errors import InvalidInputError
from shared.tasks import AsrOptions
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import Generation, TransformersModel
from workers.inference.handlers.asr import AsrHandler
from workers.inference.handlers.audio import features_of, sound_metadata
from workers.inference.handlers.streaming import Stopper
from workers.inference.handlers.whisper_progress import WhisperProgress
from workers.inference.handlers.whisper_segments import segment_chunks
from workers.inference.handlers.whisper_stream import WhisperStream
from workers.inference.media import DecodedAudio

#: Options that have the same name and meaning in transformers; ``temperature`` has its own way.
_SAME = frozenset(
    {
        "early_stopping",
        "length_penalty",
        "max_length",
        "max_new_tokens",
        "num_beams",
        "repetition_penalty",
        "top_k",
        "top_p",
    }
)


@dataclass(frozen=True)
class _Dictation(Generation):
    """A generation, the sound that it writes down, and who reads along."""

    sound: DecodedAudio | None = None
    stream: WhisperStream | None = None
    progress: WhisperProgress | None = None


class WhisperHandler(AsrHandler):
    """Gives what Whisper's ``generate`` gives for the same sound and options."""

    def preprocess(self, model: TransformersModel, call: InferenceCall) -> _Dictation:
        """Decode the sound, and settle every parameter that the request leaves open."""
        options = self.options(call)
        own = model.model.generation_config
        _check(options, own)
        temperature = _temperature(options)
        extractor = model.processor.feature_extractor
        sound = self.hear(extractor, call)
        is_long = len(sound.waveform) > extractor.n_samples
        whole = {"truncation": False, "padding": "longest"} if is_long else {}
        tokenizer = model.processor.tokenizer
        stream = WhisperStream(tokenizer, call.on_token) if call.on_token else None
        # What beams find is known at the end, and what is taken for silence is taken back.
        beams = 1 if temperature else options.num_beams or own.num_beams or 1
        streams = beams == 1 and getattr(own, "no_speech_threshold", None) is None
        progress = WhisperProgress(sound, extractor, call)
        asked, by_word = options.return_timestamps, options.return_timestamps == "word"
        return _Dictation(
            inputs=features_of(extractor, sound.waveform, return_attention_mask=True, **whole),
            config=self._config(options, model.model.config.max_target_positions),
            seed=_seed(options) if temperature else None,
            stopping=StoppingCriteriaList([Stopper(tokenizer, 0, (), call.token)]),
            streamer=stream if streams else None,
            arguments={
                "temperature": temperature,
                "language": options.language,
                "task": options.task,
                # Long sound needs them: transformers refuses to do without, also where published
                # models' own configuration says to.
                "return_timestamps": bool(asked) or is_long,
                "return_token_timestamps": by_word or None,
                "return_segments": True,
                "monitor_progress": progress,
            },
            changes_model=by_word,  # to another way of attention, for ever
            sound=sound,
            stream=stream,
            progress=progress,
        )

    def postprocess(
        self, model: TransformersModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Return the text, and how it came to its end."""
        options = self.options(call)
        segments = output["segments"][0]
        text, timed = _read(model, output, options.return_timestamps)
        if inputs.stream is not None:
            call.token.check()
            inputs.stream.finish(text)
        windows = _windows(segments)
        end = model.model.generation_config.eos_token_id
        cut_off = any(int(window[-1]) != end for window in windows)
        inputs.progress.end()
        return {
            "text": text,
            **timed,
            "metadata": {
                **sound_metadata(inputs.sound),
                "language": _language(model, windows),
                "output_tokens": sum(len(segment["tokens"]) for segment in segments),
                "finish_reason": "length" if cut_off else "stop",
                "chunks": len(windows),
                "seed": inputs.seed,
            },
        }

    def _config(self, options: AsrOptions, positions: int) -> GenerationConfig:
        """Map what the request says; what it leaves open follows the model's own configuration."""
        given = options.model_dump(include=set(_SAME), exclude_none=True)
        if not given.keys() & {"max_length", "max_new_tokens"}:
            given["max_length"] = min(self.settings.inference.max_new_tokens, positions)
        try:
            return GenerationConfig(**given)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise InvalidInputError(f"the options do not work: {error}", field="options") from None


def _check(options: AsrOptions, own: GenerationConfig) -> None:
    """Refuse a language, a task or a kind of timestamps that the model does not know."""
    if options.return_timestamps == "char":
        raise InvalidInputError(
            'Whisper tells the time of segments and words; return_timestamps can be true or "word"',
            field="options.return_timestamps",
        )
    if options.return_timestamps == "word" and not hasattr(own, "alignment_heads"):
        raise InvalidInputError(
            "this model cannot tell the time of words: its generation_config.json has no "
            "alignment_heads",
            field="options.return_timestamps",
        )
    known = getattr(own, "lang_to_id", None) if getattr(own, "is_multilingual", True) else None
    if not known:
        if options.language or options.task:
            name = "language" if options.language else "task"
            raise InvalidInputError("this model knows one language only", field=f"options.{name}")
        return
    if options.language and _language_token(options.language) not in known:
        names = ", ".join(sorted(token.strip("<|>") for token in known))
        raise InvalidInputError(
            f"the model does not know {options.language!r}; it knows: {names}",
            field="options.language",
        )


def _language_token(language: str) -> str:
    """Return a language's token for its name, its code or the token itself."""
    name = language.lower()
    return name if name.startswith("<|") else f"<|{TO_LANGUAGE_CODE.get(name, name)}|>"


def _temperature(options: AsrOptions) -> float | None:
    """Return what Whisper samples with; None where it does not.

    Its ``generate`` samples if and only if it is given a temperature, whatever ``do_sample`` says.
    """
    if options.do_sample and options.temperature == 0:
        raise InvalidInputError(
            "a temperature of 0 cannot be sampled with", field="options.temperature"
        )
    if options.do_sample is False:
        return None
    return options.temperature or (1.0 if options.do_sample else None)


def _seed(options: AsrOptions) -> int:
    """Return the seed of the request, else a new one, small enough for every JSON reader."""
    return secrets.randbits(32) if options.seed is None else options.seed


def _read(
    model: TransformersModel, output: Mapping[str, Any], timestamps: bool | str | None
) -> tuple[str, dict[str, Any]]:
    """Return the text; with timestamps, also its chunks."""
    heard: dict[str, Any] = {"tokens": output["sequences"].cpu()}
    if timestamps == "word":
        times = [segment["token_timestamps"] for segment in output["segments"][0]]
        heard["token_timestamps"] = torch.cat(times)[None]
    window = model.processor.feature_extractor.chunk_length
    precision = window / model.model.config.max_source_positions
    # Private, but what the pipeline reads Whisper's answers with; nothing else knows words.
    text, more = model.processor.tokenizer._decode_asr(  # noqa: SLF001
        [heard],
        return_timestamps=timestamps or None,
        return_language=None,
        time_precision=precision,
    )
    if not timestamps:
        return text, {}
    if timestamps != "word":  # it guesses where windows begin, and here that is known
        segments = output["segments"][0]
        return text, {"chunks": segment_chunks(model.processor.tokenizer, segments, precision)}
    return text, {
        "chunks": [
            {"text": chunk["text"], "timestamp": [float(x) for x in chunk["timestamp"]]}
            for chunk in more["chunks"]
        ]
    }


def _windows(segments: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Return all tokens of each window, its prompt in front; segments of one share its result."""
    results = {id(segment["result"]): segment["result"] for segment in segments}.values()
    return [result if torch.is_tensor(result) else result["sequences"] for result in results]


def _language(model: TransformersModel, windows: list[torch.Tensor]) -> str | None:
    """Return the code of the language that was asked for or found; None if there is but one."""
    known = getattr(model.model.generation_config, "lang_to_id", None) or {}
    names = {number: token.strip("<|>") for token, number in known.items()}
    first = windows[0].tolist() if windows else []
    return next((names[token] for token in first if token in names), None)
