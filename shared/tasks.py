"""Inference tasks, engines and the options that a request may set."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Task(StrEnum):
    """What a model is asked to do."""

    TEXT_GENERATION = "text-generation"
    VLM = "vlm"
    ASR = "asr"
    OCR = "ocr"
    AUDIO_CLASSIFICATION = "audio-classification"
    VIDEO_ANALYSIS = "video-analysis"
    DOCUMENT_ANALYSIS = "document-analysis"


class Engine(StrEnum):
    """What runs a model."""

    TRANSFORMERS = "transformers"
    OLLAMA = "ollama"


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


#: The options of each task.
OPTIONS: dict[Task, type[Options]] = dict.fromkeys(Task, GenerationOptions)
