"""What a model can do is told from its configuration, and its size from its headers."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelLoadError, UnsupportedTaskError
from shared.tasks import Task
from workers.inference.architectures import check_model_supports
from workers.inference.weights import Tensor, read_header, tensors

EYES: dict[str, Any] = {"vision_config": {}}
SEEING = {
    Task.VLM,
    Task.OCR,
    Task.VIDEO_ANALYSIS,
    Task.DOCUMENT_ANALYSIS,
    Task.TEXT_GENERATION,
}


@pytest.mark.parametrize(
    ("architecture", "more", "tasks"),
    [
        ("LlamaForCausalLM", {}, {Task.TEXT_GENERATION}),
        ("GPT2LMHeadModel", {}, {Task.TEXT_GENERATION}),
        (
            "LlavaForConditionalGeneration",
            EYES,
            SEEING,
        ),
        (
            "Qwen2VLForConditionalGeneration",
            {"image_token_id": 1},
            SEEING,
        ),
        ("WhisperForConditionalGeneration", {}, {Task.ASR}),
        ("Wav2Vec2ForCTC", {}, {Task.ASR}),
        ("HubertForCTC", {}, {Task.ASR}),
        ("WhisperForAudioClassification", {}, {Task.AUDIO_CLASSIFICATION}),
        ("Speech2TextForConditionalGeneration", {}, set()),
        ("MoonshineForConditionalGeneration", {}, set()),
        ("SpeechEncoderDecoderModel", {}, set()),
        ("Wav2Vec2ForXVector", {}, set()),
        ("Wav2Vec2ForAudioFrameClassification", {}, set()),
        ("VisionEncoderDecoderModel", {}, {Task.OCR, Task.DOCUMENT_ANALYSIS}),
        (
            "VisionEncoderDecoderModel",
            {"encoder": {"model_type": "donut-swin"}},
            {Task.OCR, Task.DOCUMENT_ANALYSIS},
        ),
        (
            "VisionEncoderDecoderModel",
            {"encoder": {"model_type": "deit"}, "is_encoder_decoder": True},
            {Task.OCR},
        ),
        ("GotOcr2ForConditionalGeneration", EYES, {Task.OCR}),
        ("Gemma3ForConditionalGeneration", EYES, SEEING),
        (
            "Blip2ForConditionalGeneration",
            EYES,
            SEEING - {Task.VIDEO_ANALYSIS, Task.TEXT_GENERATION},
        ),
        (
            "T5Gemma2ForConditionalGeneration",
            EYES | {"is_encoder_decoder": True},
            SEEING - {Task.TEXT_GENERATION},
        ),
        ("ASTForAudioClassification", {}, {Task.AUDIO_CLASSIFICATION}),
        ("Wav2Vec2ForSequenceClassification", {}, {Task.AUDIO_CLASSIFICATION}),
        ("LayoutLMForQuestionAnswering", {}, {Task.DOCUMENT_ANALYSIS}),
        ("LayoutLMv2ForQuestionAnswering", {}, set()),
        ("LayoutLMv3ForQuestionAnswering", {}, {Task.DOCUMENT_ANALYSIS}),
        ("BertForMaskedLM", {}, set()),
        ("VideoMAEForVideoClassification", {}, set()),
        ("BertForSequenceClassification", {}, set()),
        ("T5ForConditionalGeneration", {}, set()),
    ],
)
def test_an_architecture_can_do_its_tasks_and_no_others(
    architecture: str, more: dict[str, Any], tasks: set[Task]
) -> None:
    config = {"architectures": [architecture], **more}
    for task in tasks:
        assert check_model_supports(config, task) == architecture
    for task in set(Task) - tasks:
        with pytest.raises(UnsupportedTaskError, match=architecture) as caught:
            check_model_supports(config, task)
        assert caught.value.field == "task"


def test_a_refusal_says_why() -> None:
    config = {
        "architectures": ["VisionEncoderDecoderModel"],
        "encoder": {"model_type": "vit"},
    }
    with pytest.raises(UnsupportedTaskError, match="its encoder is vit"):
        check_model_supports(config, Task.DOCUMENT_ANALYSIS)


@pytest.mark.parametrize(
    ("content", "error", "code"),
    [
        (None, ModelLoadError, "missing_config"),
        ("{", ModelLoadError, "corrupt_config"),
        ("[]", ModelLoadError, "corrupt_config"),
        ("{}", UnsupportedTaskError, "unsupported_architecture"),
        ('{"architectures": "Llama"}', UnsupportedTaskError, "unsupported_architecture"),
    ],
)
def test_a_configuration_that_says_nothing_is_refused(
    tmp_path: Path, content: str | None, error: type[Exception], code: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(error) as caught:
        check_model_supports(tmp_path, Task.TEXT_GENERATION)
    assert getattr(caught.value, "specific_code", None) == code


def _safetensors(file: Path, header: Any, data_bytes: int) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data_bytes))


HEADER = {
    "__metadata__": {"format": "pt"},
    "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "ids": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
}


def test_sizes_follow_the_type_that_is_loaded(tmp_path: Path) -> None:
    _safetensors(tmp_path / "model.safetensors", HEADER, 40)
    found = list(tensors(tmp_path))
    assert found == [Tensor("w", "F32", 6), Tensor("ids", "I64", 2)]
    assert sum(tensor.size_bytes(None) for tensor in found) == 40
    assert sum(tensor.size_bytes(2) for tensor in found) == 28


def test_all_shards_count(tmp_path: Path) -> None:
    names = ["model-1.safetensors", "model-2.safetensors"]
    for name in names:
        _safetensors(tmp_path / name, HEADER, 40)
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert sum(tensor.size_bytes(None) for tensor in tensors(tmp_path)) == 80


@pytest.mark.parametrize(
    "header",
    [[], {"w": {}}, {"w": {"dtype": "F99", "shape": [10], "data_offsets": [0, 40]}}, {"w": 3}],
)
def test_a_header_that_makes_no_sense_is_corrupt(tmp_path: Path, header: Any) -> None:
    _safetensors(tmp_path / "model.safetensors", header, 40)
    with pytest.raises(ModelLoadError) as caught:
        read_header(tmp_path / "model.safetensors")
    assert caught.value.specific_code == "corrupt_weights"


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100])
def test_a_file_that_is_something_else_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelLoadError, match="corrupt"):
        list(tensors(tmp_path))


def test_an_index_cannot_lead_out_of_the_model(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../../other/model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="outside"):
        list(tensors(tmp_path))
