"""What the manager answers is what transformers answers: same weights, inputs and options."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    InvalidInputError,
    LifecycleError,
    ModelLoadError,
    NotFoundError,
    UnsafeModelError,
    UnsupportedTaskError,
)
from shared.models import LakeFSLocation
from shared.settings import MIB, InferenceSettings, Settings, StorageSettings
from shared.tasks import Engine, Task
from tests.cancelling import CancelAfter
from tests.model_stores import DirectoryStore, StaticRegistry
from tests.tiny_models import tiny_llama
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.text_generation import TextGenerationHandler
from workers.inference.manager import InferenceManager, build_manager

PROMPT = "the quick brown fox"
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what jumps over the lazy dog?"},
]


class Stack:
    """A manager on stores of its own, and transformers itself beside it."""

    def __init__(self, root: Path) -> None:
        self.store = DirectoryStore(root / "store")
        self.registry = StaticRegistry()
        settings = Settings(
            inference=InferenceSettings(
                device="cpu", dtype="auto", cache_max_bytes=64 * MIB, max_new_tokens=24
            ),
            storage=StorageSettings(
                snapshots_dir=root / "snapshots", snapshots_max_bytes=0, reserve_bytes=0
            ),
        )
        self.manager: InferenceManager = build_manager(settings, self.registry, self.store)

    def publish(self, name: str, commit: str, **options: Any) -> Path:
        """Put a tiny model into the store and the registry; return its files."""
        location = self.store.location(commit)
        directory = tiny_llama(self.store.directory(location), **options)
        self.registry.add(name, location)
        return directory

    def ask(self, inputs: Any, model: str = "tiny", **more: Any) -> dict[str, Any]:
        """Generate with options given by name."""
        keywords = {key: more.pop(key) for key in ("token", "on_token", "version") if key in more}
        return self.manager.infer(
            "text-generation", "transformers", model, {"inputs": inputs}, more, **keywords
        )


class Transformers:
    """The same model, called directly."""

    def __init__(self, directory: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(directory, use_safetensors=True)
        self.tokenizer = AutoTokenizer.from_pretrained(directory)

    def ids(self, inputs: Any, **options: Any) -> list[int]:
        """Return the tokens that it generates."""
        if isinstance(inputs, str):
            encoded = self.tokenizer(inputs, return_tensors="pt")
        else:
            encoded = self.tokenizer.apply_chat_template(
                inputs, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        output = self.model.generate(**encoded, **options)
        found: list[int] = output[0, encoded["input_ids"].shape[1] :].tolist()
        return found

    def text(self, ids: list[int]) -> str:
        """Return what the tokens say."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Have torch work on one thread: on models this small, many only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("inference"))
    stack.publish("tiny", "aaaaaaaa")
    yield stack
    stack.manager.close()


@pytest.fixture(scope="module")
def direct(stack: Stack) -> Transformers:
    return Transformers(stack.store.directory(stack.store.location("aaaaaaaa")))


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Collect the token ids that the handler gets from the engine."""
    seen: list[list[int]] = []
    postprocess = TextGenerationHandler.postprocess

    def spy(
        self: TextGenerationHandler,
        model: TransformersModel,
        call: InferenceCall,
        inputs: Any,
        output: Any,
    ) -> dict[str, Any]:
        seen.append(output[0, inputs.prompt_tokens :].tolist())
        return postprocess(self, model, call, inputs, output)

    monkeypatch.setattr(TextGenerationHandler, "postprocess", spy)
    return seen


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"num_beams": 4}, id="beams"),
        pytest.param(
            {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True}, id="beams-tuned"
        ),
        pytest.param({"repetition_penalty": 1.7}, id="repetition-penalty"),
        pytest.param({"do_sample": True, "seed": 7}, id="sampling"),
        pytest.param(
            {"do_sample": True, "seed": 8, "temperature": 0.7, "top_p": 0.8, "top_k": 11},
            id="sampling-tuned",
        ),
        pytest.param({"do_sample": True, "seed": 9, "num_beams": 2}, id="beam-sampling"),
    ],
)
@pytest.mark.parametrize("inputs", [PROMPT, "日本語", CHAT], ids=["text", "japanese", "chat"])
def test_the_tokens_are_those_of_generate(
    stack: Stack,
    direct: Transformers,
    generated: list[list[int]],
    inputs: Any,
    options: dict[str, Any],
) -> None:
    result = stack.ask(inputs, max_new_tokens=20, **options)

    given = dict(options)
    torch.manual_seed(given.pop("seed", 0))
    expected = direct.ids(inputs, max_new_tokens=20, **given)
    assert generated == [expected]
    assert result["generated_text"] == direct.text(expected)
    assert result["metadata"]["output_tokens"] == 20
    assert result["metadata"]["finish_reason"] == "length"


def test_different_inputs_give_different_answers(stack: Stack) -> None:
    answers = {stack.ask(text)["generated_text"] for text in ("hello", "hallo", PROMPT)}
    assert len(answers) == 3


def test_max_length_counts_the_prompt(
    stack: Stack, direct: Transformers, generated: list[list[int]]
) -> None:
    stack.ask(PROMPT, max_length=30)
    assert generated == [direct.ids(PROMPT, max_length=30)]


def test_the_settings_bound_what_the_request_leaves_open(stack: Stack) -> None:
    assert stack.ask(PROMPT)["metadata"]["output_tokens"] == 24


def test_the_models_own_generation_config_holds_where_the_request_is_silent(
    stack: Stack, generated: list[list[int]]
) -> None:
    directory = stack.publish("opinionated", "abababab")
    file = directory / "generation_config.json"
    own = {"repetition_penalty": 1.9, "max_length": 12, "do_sample": True, "top_k": 5}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))

    stack.ask(PROMPT, "opinionated", max_new_tokens=20, seed=3)

    torch.manual_seed(3)
    assert generated == [Transformers(directory).ids(PROMPT, max_new_tokens=20)]


def test_an_answer_that_ends_by_itself_says_so(stack: Stack, direct: Transformers) -> None:
    end = direct.ids(PROMPT, max_new_tokens=6)[5]
    directory = stack.publish("ending", "acacacac")
    file = directory / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [1, end]}))

    metadata = stack.ask(PROMPT, "ending", max_new_tokens=20)["metadata"]

    assert metadata["finish_reason"] == "stop"
    assert metadata["output_tokens"] <= 6


def test_temperature_zero_is_greedy(stack: Stack) -> None:
    assert stack.ask(PROMPT, temperature=0) | {"metadata": {}} == stack.ask(PROMPT) | {
        "metadata": {}
    }


def test_a_sampled_answer_can_be_repeated_by_the_seed_in_its_metadata(stack: Stack) -> None:
    first = stack.ask(PROMPT, do_sample=True)
    again = stack.ask(PROMPT, do_sample=True, seed=first["metadata"]["seed"])
    other = stack.ask(PROMPT, do_sample=True)
    assert again["generated_text"] == first["generated_text"]
    assert other["generated_text"] != first["generated_text"]


def test_sampling_leaves_the_process_random_numbers_alone(stack: Stack) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    stack.ask(PROMPT, do_sample=True, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_concurrent_requests_do_not_disturb_each_other(stack: Stack, direct: Transformers) -> None:
    wanted: list[dict[str, Any]] = [
        {"do_sample": True, "seed": 1},
        {"do_sample": True, "seed": 2, "temperature": 1.5},
        {},
        {"num_beams": 3},
    ] * 2
    answers: list[str] = [""] * len(wanted)
    start = threading.Barrier(len(wanted))

    def ask(number: int) -> None:
        start.wait()
        answers[number] = stack.ask(PROMPT, **wanted[number])["generated_text"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for answer, options in zip(answers, wanted, strict=True):
        given = dict(options)
        torch.manual_seed(given.pop("seed", 0))
        assert answer == direct.text(direct.ids(PROMPT, max_new_tokens=24, **given))


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"do_sample": True, "seed": 4}, {"stop": "o"}, {"stop": ["\ufffd "]}],
    ids=["greedy", "beams", "sampling", "stop", "stop-not-found"],
)
@pytest.mark.parametrize("prompt", [PROMPT, "hello", "emoji 🙂", "日本語の"])
def test_streamed_pieces_are_the_text(stack: Stack, prompt: str, options: dict[str, Any]) -> None:
    pieces: list[str] = []
    result = stack.ask(prompt, max_new_tokens=120, on_token=pieces.append, **options)

    assert "".join(pieces) == result["generated_text"]
    assert result == result | stack.ask(prompt, max_new_tokens=120, **options) | {
        "metadata": result["metadata"]
    }
    if not options:
        assert len(pieces) > 20
        assert any(ord(character) > 255 for character in result["generated_text"])


@pytest.mark.parametrize("beams", [1, 3])
def test_a_stop_string_ends_the_answer_before_it(
    stack: Stack, direct: Transformers, generated: list[list[int]], beams: int
) -> None:
    whole = direct.text(direct.ids(PROMPT, max_new_tokens=40, num_beams=beams))
    found = re.search("[a-z]{2}", whole[5:])
    assert found is not None
    stop = found[0]

    result = stack.ask(PROMPT, max_new_tokens=40, num_beams=beams, stop=["never said", stop])

    assert stop not in result["generated_text"]
    if beams == 1:  # with more, one that did not say it may win
        assert result["generated_text"] == whole[: whole.index(stop)]
        assert result["metadata"]["finish_reason"] == "stop"
    expected = direct.ids(
        PROMPT,
        max_new_tokens=40,
        num_beams=beams,
        stop_strings=["never said", stop],
        tokenizer=direct.tokenizer,
    )
    assert generated == [expected]


def test_a_cancel_ends_the_generation_between_two_tokens(stack: Stack) -> None:
    token = CancelToken()
    pieces: list[str] = []

    def on_token(piece: str) -> None:
        pieces.append(piece)
        token.cancel(CancelledError("by the client"))

    with pytest.raises(CancelledError):
        stack.ask(PROMPT, max_new_tokens=200, token=token, on_token=on_token)

    assert len(pieces) == 1
    assert stack.ask(PROMPT)["metadata"]["cache_hit"]


@pytest.mark.parametrize("beams", [1, 4])
def test_a_cancel_ends_what_does_not_stream(stack: Stack, beams: int) -> None:
    token = CancelAfter(5)
    with pytest.raises(CancelledError):
        stack.ask(PROMPT, max_new_tokens=200, num_beams=beams, token=token)
    assert token.looks < 20


def test_a_cancel_ends_a_long_prompt_between_two_layers(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.publish("deep", "d0", layers=12)
    stack.ask(PROMPT, model="deep", max_new_tokens=1)
    token = CancelAfter(6)
    with pytest.raises(CancelledError):
        stack.ask(" ".join([PROMPT] * 20), model="deep", max_new_tokens=1, token=token)
    # The step has twelve layers and the token is looked at before it too.
    assert token.looks == 6


@pytest.mark.parametrize(
    ("data", "options", "field"),
    [
        ({}, {}, "data.inputs"),
        ({"inputs": ""}, {}, "data.inputs"),
        ({"inputs": 3}, {}, "data.inputs"),
        ({"inputs": []}, {}, "data.inputs"),
        ({"inputs": [{"role": "user"}]}, {}, "data.inputs"),
        ({"inputs": [{"role": "wizard", "content": "hi"}]}, {}, "data.inputs"),
        ({"inputs": "x" * 2000}, {}, "data.inputs"),
        ({"inputs": "x", "prompt": "y"}, {}, "data.prompt"),
        ({"inputs": "x"}, {"top_p": 3}, "options.top_p"),
        ({"inputs": "x"}, {"topp": 0.3}, "options.topp"),
        ({"inputs": "x"}, {"stop": ["a", ""]}, "options.stop"),
        ({"inputs": "xyz"}, {"max_length": 2}, "options.max_length"),
        ({"inputs": "x"}, {"do_sample": True, "temperature": 0}, "options.temperature"),
    ],
)
def test_a_wrong_request_names_its_field(
    stack: Stack, data: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        stack.manager.infer("text-generation", "transformers", "tiny", data, options)
    assert caught.value.field == field


def test_a_model_without_a_chat_template_takes_text_only(stack: Stack) -> None:
    stack.publish("plain", "adadadad", chat_template=None)
    assert stack.ask(PROMPT, "plain")["generated_text"]
    with pytest.raises(InvalidInputError, match="chat template") as caught:
        stack.ask(CHAT, "plain")
    assert caught.value.field == "data.inputs"


def test_names_that_lead_nowhere_are_refused(stack: Stack) -> None:
    infer = stack.manager.infer
    with pytest.raises(InvalidInputError, match="no task"):
        infer("telepathy", "transformers", "tiny", {"inputs": "x"})
    with pytest.raises(InvalidInputError, match="no engine"):
        infer("text-generation", "steam", "tiny", {"inputs": "x"})
    with pytest.raises(UnsupportedTaskError):
        infer("asr", "transformers", "tiny", {"audio": "x"})
    with pytest.raises(NotFoundError):
        infer("text-generation", "transformers", "unheard-of", {"inputs": "x"})
    stack.registry.add("elsewhere", None, engine=Engine.OLLAMA)
    with pytest.raises(InvalidInputError, match="runs on ollama"):
        infer("text-generation", "transformers", "elsewhere", {"inputs": "x"})
    stack.registry.add("nowhere", LakeFSLocation("models", "deadbeef", "model"))
    with pytest.raises(NotFoundError):
        infer("text-generation", "transformers", "nowhere", {"inputs": "x"})


def _drop_tensor(directory: Path) -> None:
    file = directory / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})


def _wrong_shape(directory: Path) -> None:
    file = directory / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, file, metadata={"format": "pt"})


def _cut_weights(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _no_safetensors(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"not a header, and longer than eight bytes")


def _pickle_only(directory: Path) -> None:
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def _no_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def _shard_missing(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _remote_code(directory: Path) -> None:
    _configure(
        directory,
        model_type="wizardry",
        architectures=["WizardForCausalLM"],
        auto_map={"AutoModelForCausalLM": "modeling_wizard.WizardForCausalLM"},
    )
    (directory / "modeling_wizard.py").write_text("raise SystemExit('remote code ran')")


def _unknown_architecture(directory: Path) -> None:
    _configure(directory, model_type="wizardry", architectures=["WizardForCausalLM"])


def _other_task(directory: Path) -> None:
    _configure(directory, architectures=["LlamaForSequenceClassification"])


def _no_tokenizer(directory: Path) -> None:
    for file in directory.glob("tokenizer*"):
        file.unlink()


def _no_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def _configure(directory: Path, **values: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("spoil", "error", "code"),
    [
        (_drop_tensor, ModelLoadError, "missing_weights"),
        (_wrong_shape, ModelLoadError, "weight_mismatch"),
        (_cut_weights, ModelLoadError, "corrupt_weights"),
        (_no_safetensors, ModelLoadError, "corrupt_weights"),
        (_pickle_only, UnsafeModelError, "pickle_weights"),
        (_no_weights, ModelLoadError, "missing_weights"),
        (_shard_missing, ModelLoadError, "missing_weights"),
        (_remote_code, UnsafeModelError, "remote_code_required"),
        (_unknown_architecture, ModelLoadError, "unsupported_architecture"),
        (_other_task, UnsupportedTaskError, "unsupported_architecture"),
        (_no_tokenizer, ModelLoadError, "model_load_failed"),
        (_no_config, ModelLoadError, "missing_config"),
    ],
)
def test_a_bad_model_is_refused_and_the_next_request_is_served(
    stack: Stack, spoil: Any, error: type[LifecycleError], code: str
) -> None:
    commit = f"bad{spoil.__name__.encode().hex()}"
    spoil(stack.publish(spoil.__name__, commit))

    with pytest.raises(error) as caught:
        stack.ask(PROMPT, spoil.__name__)

    assert caught.value.specific_code == code
    assert spoil.__name__ not in {model["name"] for model in stack.manager.get_cached_models()}
    assert stack.ask(PROMPT)["generated_text"]
    shutil.rmtree(stack.store.directory(stack.store.location(commit)))


def test_metadata_say_what_was_asked_and_how_long_it_took(stack: Stack) -> None:
    stack.ask(PROMPT)
    metadata = stack.ask(PROMPT)["metadata"]
    seconds = {name: metadata.pop(name) for name in list(metadata) if name.endswith("_seconds")}
    assert seconds.keys() == {
        "load_seconds",
        "preprocess_seconds",
        "inference_seconds",
        "postprocess_seconds",
    }
    assert metadata == {
        "model": "tiny",
        "version": "1",
        "commit": "aaaaaaaa",
        "engine": "transformers",
        "device": "cpu",
        "cache_hit": True,
        "input_tokens": 4,
        "output_tokens": 24,
        "finish_reason": "length",
        "seed": None,
    }


def test_clearing_the_cache_frees_models_and_tells_which(stack: Stack) -> None:
    stack.ask(PROMPT)
    cleared = stack.manager.clear_cache("tiny")
    assert cleared == {
        "unloaded": [{"engine": "transformers", "name": "tiny", "version": "1"}],
        "in_use": [],
    }
    assert not stack.ask(PROMPT)["metadata"]["cache_hit"]


def test_stats_and_health_are_json(stack: Stack) -> None:
    stack.ask(PROMPT)
    stats = json.loads(json.dumps(stack.manager.get_stats()))
    assert stats["requests"] == stats["succeeded"] + stats["failed"] + stats["cancelled"]
    assert 0 < stats["success_rate"] <= 1
    assert stats["cache"]["hits"] > 0
    assert "text-generation:transformers" in stats["handlers"]
    health = json.loads(json.dumps(stack.manager.health_check()))
    assert health["status"] == "healthy"
    assert health["router"]["in_use"]["transformers"]["device"] == "cpu"


def test_half_precision_takes_half_the_memory(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.publish("half", "afafafaf", dtype=torch.bfloat16)
    stack.publish("whole", "abcdabcd")
    stack.ask(PROMPT, "half")
    stack.ask(PROMPT, "whole")
    sizes = {model["name"]: model["size_bytes"] for model in stack.manager.get_cached_models()}
    assert sizes["half"] < 0.6 * sizes["whole"]
    stack.manager.close()
    assert stack.manager.get_cached_models() == []


def test_a_preloaded_model_is_warm_at_the_first_request(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.publish("tiny", "aaaaaaaa")
    stack.manager.preload("tiny")
    assert stack.ask(PROMPT)["metadata"]["cache_hit"]
    assert stack.registry.resolve("tiny").task == Task.TEXT_GENERATION
    stack.manager.close()
