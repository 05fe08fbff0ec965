"""Which tasks a model can do, told from its ``config.json`` alone: no torch needed."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from shared.errors import ModelLoadError, UnsupportedTaskError
from shared.tasks import Task


class Family(StrEnum):
    """Architectures that are loaded and called alike."""

    CAUSAL_LM = "causal-lm"
    IMAGE_TEXT = "image-text-to-text"
    SPEECH_SEQ2SEQ = "speech-seq2seq"
    SPEECH_CTC = "speech-ctc"
    VISION_SEQ2SEQ = "vision-encoder-decoder"
    AUDIO_CLASSIFIER = "audio-classifier"
    DOCUMENT_QA = "document-question-answering"


#: What the models of each family can be asked for.
TASKS: dict[Family, frozenset[Task]] = {
    Family.CAUSAL_LM: frozenset({Task.TEXT_GENERATION}),
    Family.IMAGE_TEXT: frozenset(
        {
            Task.VLM,
            Task.OCR,
            Task.VIDEO_ANALYSIS,
            Task.DOCUMENT_ANALYSIS,
            Task.TEXT_GENERATION,
        }
    ),
    Family.SPEECH_SEQ2SEQ: frozenset({Task.ASR}),
    Family.SPEECH_CTC: frozenset({Task.ASR}),
    Family.VISION_SEQ2SEQ: frozenset({Task.OCR, Task.DOCUMENT_ANALYSIS}),
    Family.AUDIO_CLASSIFIER: frozenset({Task.AUDIO_CLASSIFICATION}),
    Family.DOCUMENT_QA: frozenset({Task.DOCUMENT_ANALYSIS}),
}

#: The first match wins, so what is said by a model's own name comes before the general endings.
_ENDINGS: tuple[tuple[str, Family], ...] = (
    ("VisionEncoderDecoderModel", Family.VISION_SEQ2SEQ),
    ("ForCTC", Family.SPEECH_CTC),
    ("ForAudioClassification", Family.AUDIO_CLASSIFIER),
    ("ForImageTextToText", Family.IMAGE_TEXT),
    ("ForVision2Seq", Family.IMAGE_TEXT),
    ("ForCausalLM", Family.CAUSAL_LM),
    ("LMHeadModel", Family.CAUSAL_LM),
)
#: Models whose class ends in ``ForConditionalGeneration`` and that hear instead of see. Others that
#: do are not served: each cuts long sound and tells the time in its own way.
_SPEECH = ("WhisperFor",)
#: Models whose class ends in ``ForSequenceClassification`` and that hear instead of read.
_AUDIO = ("AST", "Data2VecAudio", "Hubert", "SEW", "UniSpeech", "Wav2Vec2", "WavLM")
#: Models that look at one image at a time.
_ONE_IMAGE = ("Blip", "Florence2", "InstructBlipFor", "Kosmos2", "Pix2Struct")
#: Models that find answers among words and their places on the page; not all that are so named.
_DOCUMENT_QA = ("LayoutLMForQuestionAnswering", "LayoutLMv3ForQuestionAnswering")
#: Configuration keys that only a model with eyes has.
_VISION_KEYS = frozenset({"vision_config", "vision_tower", "image_token_id", "image_token_index"})


def read_config(directory: Path) -> dict[str, Any]:
    """Read a model's ``config.json``."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except FileNotFoundError:
        raise ModelLoadError("the model has no config.json", code="missing_config") from None
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(
            f"the model's config.json is not JSON: {error}", code="corrupt_config"
        ) from None
    if not isinstance(config, dict):
        raise ModelLoadError("the model's config.json is not an object", code="corrupt_config")
    return config


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """Return the first class that the configuration names."""
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return None


def family_of(config: Mapping[str, Any]) -> Family | None:
    """Return the family of the model that the configuration describes; None if there is none."""
    name = architecture_of(config) or ""
    for ending, family in _ENDINGS:
        if name.endswith(ending):
            return family
    if name.endswith("ForConditionalGeneration"):
        if name.startswith(_SPEECH):
            return Family.SPEECH_SEQ2SEQ
        return Family.IMAGE_TEXT if _VISION_KEYS & config.keys() else None
    if name.endswith("ForSequenceClassification") and name.startswith(_AUDIO):
        return Family.AUDIO_CLASSIFIER
    return Family.DOCUMENT_QA if name in _DOCUMENT_QA else None


def tasks_of(config: Mapping[str, Any]) -> frozenset[Task]:
    """Return what the model that the configuration describes can be asked for."""
    family = family_of(config)
    return frozenset() if family is None else TASKS[family] - _refused(config).keys()


def _refused(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the tasks of its family that this model cannot do, and why."""
    name = architecture_of(config) or ""
    if name.startswith(_ONE_IMAGE):
        one = "it looks at one image at a time"
        return {Task.VIDEO_ANALYSIS: one, Task.TEXT_GENERATION: one}
    if name.startswith("GotOcr2"):
        others = TASKS[Family.IMAGE_TEXT] - {Task.OCR}
        return dict.fromkeys(others, "it reads, and takes no prompt")
    encoder = config.get("encoder")
    kind = encoder.get("model_type") if isinstance(encoder, dict) else None
    if name == "VisionEncoderDecoderModel" and kind not in {None, "donut-swin"}:
        return {
            Task.DOCUMENT_ANALYSIS: f"its encoder is {kind}; those that take questions are Donut's"
        }
    if config.get("is_encoder_decoder"):
        return {Task.TEXT_GENERATION: "its encoder takes what its decoder would go on with"}
    return {}


def check_model_supports(model: Path | Mapping[str, Any], task: str) -> str:
    """Return the model's architecture, or raise because it cannot do ``task``.

    ``model`` is its directory or the content of its ``config.json``.
    """
    config = read_config(model) if isinstance(model, Path) else model
    name = architecture_of(config)
    if name is None:
        raise UnsupportedTaskError(
            f"the model's config.json names no architecture, so it cannot be served for {task}",
            field="task",
            code="unsupported_architecture",
        )
    family = family_of(config)
    if family is None:
        raise UnsupportedTaskError(
            f"{name} is not an architecture of any task that is served",
            field="task",
            code="unsupported_architecture",
        )
    if task not in (tasks := tasks_of(config)):
        why = f" ({reason})" if (reason := _refused(config).get(task)) else ""
        can = ", ".join(sorted(tasks))
        raise UnsupportedTaskError(f"{name} cannot do {task}{why}; it can do: {can}", field="task")
    return name
