"""What requests to models of Ollama may not do, and what goes wrong for good."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import ConflictError, InvalidInputError, ModelLoadError, NotFoundError
from shared.settings import Settings
from tests.asked_ollama import MODEL, asked
from tests.ollama_server import Model, OllamaTestServer, ollama_server
from workers.inference.engines import ollama_engine
from workers.inference.handlers.ollama_text import OllamaTextHandler

GENERATE = "/api/generate"


@pytest.fixture
def remote() -> Iterator[OllamaTestServer]:
    with ollama_server(Model(MODEL, context_length=600)) as server:
        yield server


# ── options ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("option", "bound"),
    [
        ({"repeat_penalty": 0}, "0.01"),
        ({"repeat_penalty": 1e-46}, "0.01"),
        ({"repetition_penalty": 1e-46}, "0.01"),
        ({"temperature": 1e40}, "100"),
        ({"temperature": -1}, "0"),
        ({"top_p": 1.5}, "1"),
        ({"top_k": -1}, "0"),
        ({"min_p": -0.1}, "0"),
        ({"typical_p": 2}, "1"),
        ({"mirostat": 3}, "2"),
        ({"mirostat_tau": -1}, "0"),
        ({"mirostat_eta": 1e39}, "1"),
        ({"presence_penalty": 1e39}, "100"),
        ({"repeat_last_n": -2}, "-1"),
        ({"repeat_last_n": 601}, "600"),
        ({"num_predict": 0}, "1"),
        ({"num_predict": -3}, "-2"),
        ({"num_predict": 10**12}, str(2**31 - 1)),
        ({"num_ctx": 10**12}, str(2**31 - 1)),
        ({"num_ctx": 601}, "600"),
        ({"num_ctx": 3}, "4"),
        ({"seed": 2**32}, str(2**32 - 1)),
        ({"seed": -1}, "0"),
        ({"think": True}, "does not think"),
        ({"think": "deeply"}, "must be true, false, 'low', 'medium', 'high' or 'max'"),
        ({"format": "xml"}, "must be 'json' or a JSON schema"),
        ({"format": ["json"]}, "must be 'json' or a JSON schema"),
    ],
)
def test_an_option_has_bounds_and_is_not_sent_beyond_them(
    remote: OllamaTestServer, option: dict[str, object], bound: str
) -> None:
    (name,) = option
    with pytest.raises(InvalidInputError, match=re.escape(bound)) as refused:
        asked(remote).infer("a", **option)
    assert refused.value.field == f"options.{name}"
    assert not remote.bodies(GENERATE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_thread", 10_000),
        ("num_batch", 1),
        ("num_gpu", 0),
        ("main_gpu", 1),
        ("use_mmap", False),
        ("use_mlock", True),
        ("numa", True),
        ("draft_num_predict", 1),
        ("keep_alive", -1),
    ],
)
def test_options_of_the_host_are_the_operators(
    remote: OllamaTestServer, name: str, value: object
) -> None:
    with pytest.raises(InvalidInputError, match="the operator sets this") as refused:
        asked(remote).infer("a", **{name: value})
    assert refused.value.field == f"options.{name}"
    assert "Value error" not in refused.value.detail, "pydantic's words"
    assert not remote.bodies(GENERATE)


def test_the_operators_options_go_with_each_request(remote: OllamaTestServer) -> None:
    host = {"num_thread": 4, "use_mmap": False, "num_ctx": 512}
    ask = asked(remote, options=host, keep_alive="10m")
    ask.infer("a")
    ask.infer("a", num_ctx=256)
    first, second = remote.bodies(GENERATE)
    assert host.items() <= first["options"].items()
    assert second["options"] | {"num_ctx": 256, "num_thread": 4} == second["options"]
    assert first["keep_alive"] == second["keep_alive"] == "10m"


def test_the_operators_context_is_at_most_the_models(remote: OllamaTestServer) -> None:
    asked(remote, options={"num_ctx": 8192}).infer("a")
    assert remote.bodies(GENERATE)[0]["options"]["num_ctx"] == 600


def test_a_seed_is_drawn_sent_and_told(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    first = ask.infer("a b c d e")
    seed = first["metadata"]["seed"]
    assert remote.bodies(GENERATE)[0]["options"]["seed"] == seed
    assert 0 <= seed < 2**31
    assert ask.infer("a b c d e", seed=seed)["generated_text"] == first["generated_text"]
    assert len({ask.infer("a")["metadata"]["seed"] for _ in range(4)}) > 1


# ── the context ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("tells_lengths", [True, False])
def test_a_prompt_longer_than_the_context_is_refused_and_not_cut(
    remote: OllamaTestServer, chat: bool, tells_lengths: bool
) -> None:
    remote.tells_lengths = tells_lengths
    text = "secret " + "word " * 99
    inputs: Any = [{"role": "user", "content": text}] if chat else text
    has = f"has {100 + chat} tokens" if tells_lengths else "has too many tokens"
    with pytest.raises(InvalidInputError, match=f"{has}, and the model takes fewer than 64") as no:
        asked(remote).infer(inputs, num_ctx=64)
    assert (no.value.field, no.value.specific_code) == ("data.inputs", "prompt_too_long")


@pytest.mark.parametrize("most", [-1, -2, 10_000])
def test_an_answer_ends_with_the_context_and_does_not_shift_it(
    remote: OllamaTestServer, most: int
) -> None:
    result = asked(remote).infer("word " * 50, num_ctx=64, temperature=0, num_predict=most)
    metadata = result["metadata"]
    assert metadata["finish_reason"] == "length"
    assert metadata["input_tokens"] + metadata["output_tokens"] == 64
    assert metadata["context_length"] == 64


def test_tokens_that_are_used_up_before_the_answer_are_noted(remote: OllamaTestServer) -> None:
    remote.have(Model(MODEL, capabilities=("completion", "thinking")))
    ask = asked(remote)
    result = ask.infer("a b c", num_predict=2)
    assert result["generated_text"] == ""
    assert re.search("2 tokens were used up on thoughts.*num_predict", result["metadata"]["note"])
    assert "note" not in ask.infer("a", num_predict=9)["metadata"]


# ── messages ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        ({"inputs": "a", "tools": []}, "data.tools", "tools are not supported"),
        ({"inputs": "a", "images": []}, "data.images", "images are not supported"),
        (
            {"inputs": [{"role": "tool", "content": "x"}]},
            "data.inputs.0.role",
            "the role 'tool' is not supported",
        ),
        (
            {"inputs": [{"role": "user", "content": "x", "images": []}]},
            "data.inputs.0.images",
            "images in a message are not supported",
        ),
        (
            {"inputs": [{"role": "assistant", "content": "x", "tool_calls": []}]},
            "data.inputs.0.tool_calls",
            "tool_calls in a message are not supported",
        ),
        ({"inputs": [{"role": "user"}]}, "data.inputs.0.content", "is a text"),
    ],
)
def test_what_is_not_supported_is_named(data: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as refused:
        OllamaTextHandler(Settings()).validate_input(data)
    assert refused.value.field == field


# ── what is wrong for good ───────────────────────────────────────────────────


def test_a_schema_that_is_none_is_the_requests_fault(remote: OllamaTestServer) -> None:
    with pytest.raises(InvalidInputError, match="Unrecognized schema") as refused:
        asked(remote).infer("a", format={"type": "nonsense"})
    assert refused.value.field == "options.format"
    assert not refused.value.retryable


def test_a_broken_model_is_not_tried_again(remote: OllamaTestServer) -> None:
    remote.have(Model(MODEL, broken=True))
    with pytest.raises(ModelLoadError, match="corrupted or incomplete") as refused:
        asked(remote).infer("a")
    assert refused.value.specific_code == "corrupt_weights"
    assert not refused.value.retryable


# ── which model answers ──────────────────────────────────────────────────────


def registered(model: Model) -> dict[str, str]:
    return {
        "ollama_model_name": model.name,
        "revision": model.digest,
        "gguf_sha256": model.blob,
    }


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("without", ["", "gguf_sha256"])
def test_a_model_that_was_replaced_is_a_conflict(
    remote: OllamaTestServer, monkeypatch: pytest.MonkeyPatch, loaded: bool, without: str
) -> None:
    monkeypatch.setattr(ollama_engine, "_LIST_SECONDS", -1.0)
    before, after = remote.models[MODEL], Model(MODEL, content="another")
    tags = registered(before)
    tags.pop(without, None)
    ask = asked(remote)
    ask.tags = tags
    model = ask.load(**tags)
    if loaded:
        ask.infer("a")
    remote.have(after)
    names = (before.digest, after.digest) if without else (before.blob, after.blob)
    with pytest.raises(ConflictError, match=f"{names[0]}.*{names[1]}") as conflict:
        ask.use(model, "a") if loaded else ask.infer("a")
    assert conflict.value.specific_code == "model_replaced"
    remote.have(before)
    ask.use(model, "a")


def test_it_is_served_with_its_digest_where_the_setting_says_so(remote: OllamaTestServer) -> None:
    before, after = remote.models[MODEL], Model(MODEL, content="another")
    ask = asked(remote, replaced_models="serve")
    ask.tags = registered(before)
    remote.have(after)
    metadata = ask.infer("a")["metadata"]
    assert (metadata["ollama_digest"], metadata["gguf_sha256"]) == (after.digest, after.blob)


def test_the_same_file_under_another_manifest_is_the_same_model(remote: OllamaTestServer) -> None:
    before = remote.models[MODEL]
    ask = asked(remote)
    ask.tags = registered(before)
    remote.have(replace(before, manifest="of another host"))
    assert ask.infer("a")["metadata"]["gguf_sha256"] == before.blob


def test_many_requests_ask_for_the_list_once_a_second(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    model = ask.load()
    before = len(remote.bodies("/api/tags"))
    for _ in range(10):
        ask.use(model, "a")
    assert len(remote.bodies("/api/tags")) - before < 10


def test_near_names_are_named(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    ask.tags = {"ollama_model_name": "echo"}
    with pytest.raises(NotFoundError, match=r"no model 'echo:latest'.*Did you mean 'echo:1b'\?"):
        ask.infer("a")
