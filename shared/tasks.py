"""Inference tasks, engines and the options that a request may set.

Plugins bring further tasks and engines under names of their own, so what is built in is listed
here, and what a request or a version names is a plain string.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)


class Task(StrEnum):
    """What a model is asked to do, without plugins."""

    TEXT_GENERATION = "text-generation"
    VLM = "vlm"
    ASR = "asr"
    OCR = "ocr"
    AUDIO_CLASSIFICATION = "audio-classification"
    VIDEO_ANALYSIS = "video-analysis"
    DOCUMENT_ANALYSIS = "document-analysis"


class Engine(StrEnum):
    """What runs a model, without plugins."""

    TRANSFORMERS = "transformers"
    OLLAMA = "ollama"


#: What every task and every engine is named like, as a pattern of pydantic and of ``re``.
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
BUILT_IN_TASKS: frozenset[str] = frozenset(Task)
BUILT_IN_ENGINES: frozenset[str] = frozenset(Engine)


class Options(BaseModel):
    """Base of all options: an unknown one is an error, an unset one is not passed on."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GenerationOptions(Options):
    """Options of every task whose model generates tokens; meanings and ranges are transformers'."""

    #: Tokens of prompt and answer together.
    max_length: Annotated[int, Field(ge=1)] | None = None
    #: Tokens of the answer.
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    do_sample: bool | None = None
    num_beams: Annotated[int, Field(ge=1, le=64)] | None = None
    early_stopping: bool | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    length_penalty: float | None = None
    #: Makes sampling repeatable.
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    #: The answer ends before the first of these.
    stop: str | tuple[str, ...] | None = None


class TextOptions(GenerationOptions):
    """Options of text generation."""

    #: Whether the model thinks before it answers, as far as its chat template lets one choose; the
    #: template says it if not set. Thoughts count as tokens of the answer.
    think: bool | None = None


class VideoOptions(GenerationOptions):
    """Options of questions about a video."""

    #: Frames looked at, taken evenly from the whole video.
    num_frames: Annotated[int, Field(ge=1)] | None = None


class DocumentOptions(GenerationOptions):
    """Options of questions about a document."""

    #: The only page looked at, counted from 1; all if not set.
    page: Annotated[int, Field(ge=1)] | None = None


def _not_in_asr(value: object) -> object:
    if value is not None:
        raise ValueError("speech recognition has no stop strings")
    return value


class AsrOptions(GenerationOptions):
    """Options of speech recognition; those of generation are for models that generate text.

    They hold for each part of a long sound that the model hears at once, as in transformers.
    """

    #: What is spoken: a name or a code, as ``german`` or ``de``; the model finds out if not set.
    language: Annotated[str, Field(min_length=2, max_length=40)] | None = None
    #: Write what is said as it is said, or in English.
    task: Literal["transcribe", "translate"] | None = None
    #: When it is said: by segments (``true``), words, or characters, as far as the model can tell.
    return_timestamps: bool | Literal["word", "char"] | None = None
    stop: Annotated[str | tuple[str, ...] | None, BeforeValidator(_not_in_asr)] = None


class AudioClassificationOptions(Options):
    """Options of audio classification."""

    #: How many labels are returned, those with the highest scores.
    top_k: Annotated[int, Field(ge=1)] = 5
    #: What makes scores of the model's numbers; the model's configuration says it if not set.
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


def _not_in_ollama(value: object) -> object:
    if value is not None:
        raise ValueError("Ollama has no such option")
    return value


def _of_the_operator(value: object) -> object:
    if value is not None:
        raise ValueError(
            "the operator sets this for all requests: OLLAMA_OPTIONS, or OLLAMA_KEEP_ALIVE for "
            "keep_alive"
        )
    return value


def _not_zero(value: int | None) -> int | None:
    if value == 0:
        raise ValueError(
            "0 means no limit to Ollama: give at least 1, or -1 for as many as the context holds"
        )
    return value


def _as(words: str) -> WrapValidator:
    """Refuse a value with these words, in place of one error for each type of a union."""

    def checked(value: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(value)
        except ValidationError:
            raise ValueError(words) from None

    return WrapValidator(checked)


_NotInOllama = BeforeValidator(_not_in_ollama)
#: Options that concern the host that Ollama runs on: its threads, memory and devices.
_OfTheOperator = BeforeValidator(_of_the_operator)

#: Ollama keeps whole numbers in 32 bits where the model runs, and others in 32-bit floats. Beyond
#: these bounds it fails, or takes another value without a word.
_LARGEST = 2**31 - 1
_Count = Annotated[int, Field(ge=1, le=_LARGEST)]
_Tokens = Annotated[int, Field(ge=-2, le=_LARGEST), AfterValidator(_not_zero)]
#: One of 0, also one that is 0 as a 32-bit float, aborts the process that runs the model.
_Penalty = Annotated[float, Field(ge=0.01, le=100)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_Share = Annotated[float, Field(ge=0, le=1)]

#: A time as Ollama takes it: ``10m`` or ``1h30m``, or seconds; negative is for ever.
KeepAlive = Annotated[
    Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(pattern=r"^-?([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$")],
    Field(union_mode="left_to_right"),
]


class OllamaOptions(GenerationOptions):
    """Options of models on Ollama: the common ones that it can do, and its own.

    Its own are those that its client or its documentation knows. Which of them a server honours
    depends on its version and the model; it ignores the others. Those that concern its host are
    the operator's.
    """

    max_length: Annotated[int | None, _NotInOllama] = None
    num_beams: Annotated[int | None, _NotInOllama] = None
    early_stopping: Annotated[bool | None, _NotInOllama] = None
    length_penalty: Annotated[float | None, _NotInOllama] = None

    max_new_tokens: _Count | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, le=_LARGEST)] | None = None
    repetition_penalty: _Penalty | None = None
    #: Makes sampling repeatable; drawn and reported if not set. Ollama takes seeds modulo 2**32,
    #: and 2**32 - 1 as none.
    seed: Annotated[int, Field(ge=0, lt=2**32 - 1)] | None = None

    #: Tokens of the answer; -1 and -2 are as many as the context holds after the prompt.
    num_predict: _Tokens | None = None
    repeat_penalty: _Penalty | None = None
    #: Tokens that are looked at for repetitions; -1 is the context, which is also the most.
    repeat_last_n: Annotated[int, Field(ge=-1, le=_LARGEST)] | None = None
    presence_penalty: _Bias | None = None
    frequency_penalty: _Bias | None = None
    penalize_newline: bool | None = None
    min_p: _Share | None = None
    typical_p: _Share | None = None
    tfs_z: Annotated[float, Field(ge=0, le=100)] | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Field(ge=0, le=100)] | None = None
    mirostat_eta: _Share | None = None
    num_keep: Annotated[int, Field(ge=-1, le=_LARGEST)] | None = None

    #: Tokens of prompt and answer that the model is loaded for, at most those that it was trained
    #: for; another value loads it again.
    num_ctx: Annotated[int, Field(ge=4, le=_LARGEST)] | None = None

    num_batch: Annotated[int | None, _OfTheOperator] = None
    num_gpu: Annotated[int | None, _OfTheOperator] = None
    main_gpu: Annotated[int | None, _OfTheOperator] = None
    num_thread: Annotated[int | None, _OfTheOperator] = None
    draft_num_predict: Annotated[int | None, _OfTheOperator] = None
    numa: Annotated[bool | None, _OfTheOperator] = None
    low_vram: Annotated[bool | None, _OfTheOperator] = None
    f16_kv: Annotated[bool | None, _OfTheOperator] = None
    logits_all: Annotated[bool | None, _OfTheOperator] = None
    vocab_only: Annotated[bool | None, _OfTheOperator] = None
    use_mmap: Annotated[bool | None, _OfTheOperator] = None
    use_mlock: Annotated[bool | None, _OfTheOperator] = None
    embedding_only: Annotated[bool | None, _OfTheOperator] = None
    keep_alive: Annotated[KeepAlive | None, _OfTheOperator] = None

    #: Beside Ollama's options in its requests: for models that think (which they do if not set;
    #: thoughts count for ``num_predict``), for answers in JSON.
    think: Annotated[
        bool | Literal["low", "medium", "high", "max"] | None,
        _as("must be true, false, 'low', 'medium', 'high' or 'max'"),
    ] = None
    format: Annotated[
        Literal["json"] | dict[str, Any] | None, _as("must be 'json' or a JSON schema")
    ] = None

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        """Refuse an option that is given under both of its names."""
        for common, own in OLLAMA_NAMES.items():
            if getattr(self, common) is not None and getattr(self, own) is not None:
                raise ValueError(f"{common} and {own} are the same option: give one of them")
        return self


class OllamaHostOptions(Options):
    """Options of Ollama that concern its host; the operator sets them for all requests."""

    #: Where a request does not say.
    num_ctx: Annotated[int, Field(ge=4, le=_LARGEST)] | None = None
    num_batch: _Count | None = None
    num_gpu: Annotated[int, Field(ge=-1, le=_LARGEST)] | None = None
    main_gpu: Annotated[int, Field(ge=0, le=_LARGEST)] | None = None
    num_thread: Annotated[int, Field(ge=0, le=1024)] | None = None
    draft_num_predict: Annotated[int, Field(ge=0, le=_LARGEST)] | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None


#: Common names of options, and Ollama's for the same.
OLLAMA_NAMES = {"max_new_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}


def options_of(task: str, engine: str) -> type[Options] | None:
    """Return the options that a request may set; None where only a plugin's handler knows."""
    if task not in BUILT_IN_TASKS or engine not in BUILT_IN_ENGINES:
        return None
    return OllamaOptions if engine == Engine.OLLAMA else OPTIONS[task]


#: The options of each task on transformers.
OPTIONS: dict[str, type[Options]] = {
    **dict.fromkeys(Task, GenerationOptions),
    Task.TEXT_GENERATION: TextOptions,
    Task.ASR: AsrOptions,
    Task.AUDIO_CLASSIFICATION: AudioClassificationOptions,
    Task.VIDEO_ANALYSIS: VideoOptions,
    Task.DOCUMENT_ANALYSIS: DocumentOptions,
}
