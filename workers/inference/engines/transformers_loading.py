"""How a transformers model gets from its files to memory, and why it may be refused."""

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForDocumentQuestionAnswering,
    AutoModelForImageTextToText,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    VisionEncoderDecoderModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from shared.errors import ModelLoadError, UnsafeModelError
from workers.inference.architectures import Family, check_model_supports, read_config
from workers.inference.engines.speech_processor import SpeechProcessor
from workers.inference.weights import tensors

#: The classes that load a family's model and its processor.
_LOADERS: dict[Family, tuple[Any, Any]] = {
    Family.CAUSAL_LM: (AutoModelForCausalLM, AutoTokenizer),
    Family.IMAGE_TEXT: (AutoModelForImageTextToText, AutoProcessor),
    Family.SPEECH_SEQ2SEQ: (AutoModelForSpeechSeq2Seq, SpeechProcessor),
    Family.SPEECH_CTC: (AutoModelForCTC, SpeechProcessor),
    Family.AUDIO_CLASSIFIER: (AutoModelForAudioClassification, AutoFeatureExtractor),
    Family.VISION_SEQ2SEQ: (VisionEncoderDecoderModel, AutoProcessor),
    Family.DOCUMENT_QA: (AutoModelForDocumentQuestionAnswering, AutoProcessor),
}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_FLOAT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

#: Weights that no task looks at and that published models lack: for training only (as
#: wav2vec2-base-960h), or of a summary of the whole image or page (as TrOCR's).
_UNUSED = re.compile(r"masked_spec_embed$|^(encoder|layoutlm)\.pooler\.")
#: from_pretrained sets torch's default dtype, which belongs to the process.
_LOADING = threading.Lock()
#: What transformers and tokenizers raise for files that they cannot make sense of.
_BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError)


def dtype_of(name: str) -> torch.dtype | None:
    """Return the type that the setting names; None to keep the model's own."""
    if name != "auto" and name not in _DTYPES:
        raise ValueError(f"INFERENCE_DTYPE is {name!r}; it can be auto, {', '.join(_DTYPES)}")
    return _DTYPES.get(name)


def float_bytes(dtype: torch.dtype | None, config: Mapping[str, Any]) -> int | None:
    """Return the bytes that a floating point weight takes once loaded; None for as it is stored."""
    if dtype is not None:
        return dtype.itemsize
    return _FLOAT_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")))


def check_files(directory: Path, task: str) -> None:
    """Refuse a model that must not, or cannot, be loaded; reads configuration and headers only."""
    config = read_config(directory)
    model_type = config.get("model_type")
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise _remote_code(f"the architecture {model_type!r}")
        raise ModelLoadError(
            f"transformers does not know the architecture {model_type!r}",
            code="unsupported_architecture",
        )
    check_model_supports(config, task)
    for _ in tensors(directory):
        pass


def load(
    directory: Path, family: Family | None, dtype: torch.dtype | None, device: str
) -> tuple[Any, Any]:
    """Return the model on its device, and its processor."""
    if family not in _LOADERS:
        raise ModelLoadError(
            f"no model of the family {family} can be loaded", code="unsupported_architecture"
        )
    model_class, processor_class = _LOADERS[family]
    safely = {"local_files_only": True, "trust_remote_code": False}
    with _LOADING:
        try:
            processor = processor_class.from_pretrained(directory, **safely)
            model, info = model_class.from_pretrained(
                directory,
                **safely,
                use_safetensors=True,
                dtype=dtype or "auto",
                device_map=None if device == "cpu" else {"": device},
                # Wrong shapes are then told to us instead of raised, and refused below.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except SafetensorError as error:
            raise ModelLoadError(f"a file is corrupt: {error}", code="corrupt_weights") from None
        except _BROKEN as error:
            if "trust_remote_code" in str(error):
                raise _remote_code("the model") from None
            raise ModelLoadError(f"the model cannot be loaded: {_first_line(error)}") from None
    _check_complete(info)
    return model, processor


def _check_complete(info: Mapping[str, Any]) -> None:
    """Refuse a model that transformers would have filled up with random weights."""
    if mismatched := sorted(str(name[0]) for name in info["mismatched_keys"]):
        raise ModelLoadError(
            f"weights do not have the shapes that config.json asks for: {_some(mismatched)}",
            code="weight_mismatch",
        )
    if missing := sorted(x for x in info["missing_keys"] if not _UNUSED.search(x)):
        raise ModelLoadError(f"weights are missing: {_some(missing)}", code="missing_weights")


def _remote_code(what: str) -> UnsafeModelError:
    return UnsafeModelError(
        f"{what} needs code from the model's own files, which is not run",
        code="remote_code_required",
    )


def _some(names: list[str]) -> str:
    """Name the first of them and count the rest."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
