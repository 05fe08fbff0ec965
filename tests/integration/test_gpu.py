"""On a GPU: the same answers, memory that comes back, and what happens when there is not enough."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSpeechSeq2Seq, AutoProcessor

from shared.errors import OutOfMemoryError
from shared.settings import MIB, InferenceSettings, Settings, StorageSettings
from shared.tasks import Task
from tests.model_stores import DirectoryStore, StaticRegistry
from tests.tiny_audio_models import (
    SAMPLING_RATE,
    data_uri,
    noise,
    tiny_ast,
    tiny_wav2vec2_ctc,
    tiny_whisper,
)
from tests.tiny_models import byte_level_tokenizer, tiny_llama
from workers.inference.devices import choose_device, devices
from workers.inference.manager import InferenceManager, build_manager

pytestmark = pytest.mark.gpu

PROMPT = "the quick brown fox"
#: A Llama of this width takes about 160 MiB.
WIDE = 1408


class Stack:
    """A manager on a GPU."""

    def __init__(self, root: Path, **inference: Any) -> None:
        self.store, self.registry = DirectoryStore(root / "store"), StaticRegistry()
        given = {"device": "cuda", "preload": False, **inference}
        settings = Settings(
            inference=InferenceSettings.model_validate(given),
            storage=StorageSettings(
                snapshots_dir=root / "snapshots", snapshots_max_bytes=0, reserve_bytes=0
            ),
        )
        self.manager: InferenceManager = build_manager(settings, self.registry, self.store)

    def publish(
        self,
        name: str,
        make: Callable[..., Path] = tiny_llama,
        task: Task = Task.TEXT_GENERATION,
        **options: Any,
    ) -> Path:
        """Put a model into the store and the registry; return its files."""
        location = self.store.location(name.encode().hex())
        directory = make(self.store.directory(location), **options)
        self.registry.add(name, location, task=task)
        return directory

    def ask(self, name: str, **options: Any) -> dict[str, Any]:
        """Have a model go on with the prompt."""
        options = {"max_new_tokens": 16, **options}
        return self.manager.infer(
            "text-generation", "transformers", name, {"inputs": PROMPT}, options
        )

    def evictions(self) -> dict[str, int]:
        """Return how many models were unloaded, by the reason."""
        found: dict[str, int] = self.manager.get_stats()["cache"]["evictions"]
        return found


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    """Leave nothing on the GPU, and all of it to the next test."""
    assert torch.cuda.is_available(), "these tests need a GPU"
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


def test_the_tokens_are_those_of_generate_on_the_gpu(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    directory = stack.publish("tiny")
    model: Any = AutoModelForCausalLM.from_pretrained(directory, device_map="cuda")
    tokenizer = byte_level_tokenizer()
    encoded = tokenizer(PROMPT, return_tensors="pt").to("cuda")
    for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 4}):
        result = stack.ask("tiny", **options)
        given: dict[str, Any] = dict(options)
        torch.manual_seed(given.pop("seed", 0))
        output = model.generate(**encoded, max_new_tokens=16, **given)
        ids = output[0, encoded["input_ids"].shape[1] :]
        assert result["generated_text"] == tokenizer.decode(ids, skip_special_tokens=True)
        assert result["metadata"]["device"].startswith("cuda")
    stack.manager.close()


def test_whisper_hears_on_the_gpu_what_transformers_hears_there(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    directory = stack.publish("whisper", tiny_whisper, Task.ASR)
    model: Any = AutoModelForSpeechSeq2Seq.from_pretrained(directory, device_map="cuda")
    processor: Any = AutoProcessor.from_pretrained(directory)  # type: ignore[no-untyped-call]
    sound = noise(4.3, 1)
    features = processor(
        sound,
        sampling_rate=SAMPLING_RATE,
        return_tensors="pt",
        return_attention_mask=True,
        truncation=False,
        padding="longest",
    ).to("cuda")
    ids = model.generate(**features, return_timestamps=True)[0]
    data = {"audio": data_uri(sound)}
    pieces: list[str] = []
    result = stack.manager.infer("asr", "transformers", "whisper", data, on_token=pieces.append)
    assert result["text"] == processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(pieces) == result["text"]
    words = stack.manager.infer(
        "asr", "transformers", "whisper", data, {"return_timestamps": "word"}
    )
    assert words["chunks"]
    stack.manager.close()


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_every_type_of_weights_hears_on_the_gpu(tmp_path: Path, dtype: str) -> None:
    stack = Stack(tmp_path, dtype=dtype)
    stack.publish("wav2vec2", tiny_wav2vec2_ctc, Task.ASR)
    stack.publish("ast", tiny_ast, Task.AUDIO_CLASSIFICATION)
    data = {"audio": data_uri(noise(1.5, 0))}
    assert stack.manager.infer("asr", "transformers", "wav2vec2", data)["text"]
    labels = stack.manager.infer("audio-classification", "transformers", "ast", data)["labels"]
    assert len(labels) == 5
    stack.manager.close()


def test_the_stats_tell_of_the_gpu_and_unloading_gives_its_memory_back(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.publish("wide", hidden=WIDE)
    stack.publish("tiny")
    stack.ask("tiny")
    stack.manager.clear_cache()
    before = torch.cuda.memory_allocated()

    stack.ask("wide")

    own, cpu = (x for x in stack.manager.get_stats()["devices"] if x["in_use"])
    assert own["name"] == choose_device("cuda") == devices()[0].name
    assert own["total_bytes"] > own["free_bytes"] > 0
    assert own["used_bytes"] > 100 * MIB
    assert (cpu["name"], cpu["used_bytes"]) == ("cpu", 0)
    assert torch.cuda.memory_allocated() - before >= own["used_bytes"]
    stack.manager.clear_cache()
    assert torch.cuda.memory_allocated() - before < MIB
    stack.manager.close()


def test_a_model_too_large_for_the_gpu_runs_on_the_cpu(tmp_path: Path) -> None:
    stack = Stack(tmp_path, cache_max_bytes=10 * MIB)
    stack.publish("wide", hidden=WIDE)
    stack.publish("tiny")
    assert stack.ask("wide")["metadata"]["device"] == "cpu"
    assert stack.ask("tiny")["metadata"]["device"].startswith("cuda")
    assert stack.evictions()["bytes"] == 0
    stack.manager.close()


def test_out_of_memory_while_loading_evicts_the_idle_model(tmp_path: Path) -> None:
    """The cache believes in more memory than torch may take, as when others use the GPU too."""
    stack = Stack(tmp_path, cpu_fallback=False)
    for name in ("first", "second"):
        stack.publish(name, hidden=WIDE)
    stack.ask("first")
    [own] = (x for x in stack.manager.get_stats()["devices"] if x["in_use"])
    allowed = torch.cuda.memory_reserved() + own["used_bytes"] // 2
    torch.cuda.set_per_process_memory_fraction(allowed / own["total_bytes"])

    assert stack.ask("second")["generated_text"]

    assert [model["name"] for model in stack.manager.get_cached_models()] == ["second"]
    assert stack.evictions()["out_of_memory"] == 1
    stack.manager.close()


def test_out_of_memory_with_nothing_to_evict_is_an_error_that_may_pass(tmp_path: Path) -> None:
    stack = Stack(tmp_path, cpu_fallback=False)
    stack.publish("wide", hidden=WIDE)
    stack.publish("tiny")
    stack.ask("tiny")
    stack.manager.clear_cache()
    total = devices()[0].total_bytes
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 32 * MIB) / total)
    with pytest.raises(OutOfMemoryError) as caught:
        stack.ask("wide")
    assert caught.value.retryable
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert stack.ask("wide")["generated_text"]
    stack.manager.close()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
def test_a_worker_of_the_second_gpu_leaves_the_first_alone(tmp_path: Path) -> None:
    stack = Stack(tmp_path, device="cuda:1")
    stack.publish("tiny")
    before = torch.cuda.memory_allocated("cuda:0")
    assert stack.ask("tiny")["metadata"]["device"] == "cuda:1"
    assert torch.cuda.memory_allocated("cuda:0") == before
    stack.manager.close()
