"""What is read out of names, and made of them."""

import pytest
from pydantic import TypeAdapter

from shared.ollama import OllamaDetails, full_name
from shared.requests import RegisteredName
from workers.lifecycle.ollama import estimate_billions, registered_name


def details(count: int | None = None, size: str | None = None) -> OllamaDetails:
    return OllamaDetails(None, size, None, count, frozenset())


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("qwen2", "qwen2:latest"),
        ("qwen2:0.5b", "qwen2:0.5b"),
        ("library/qwen2", "qwen2:latest"),
        ("registry.ollama.ai/library/qwen2:0.5b", "qwen2:0.5b"),
        ("hf.co/bartowski/Llama-GGUF:Q4_K_M", "hf.co/bartowski/Llama-GGUF:Q4_K_M"),
        ("localhost:5000/team/model", "localhost:5000/team/model:latest"),
    ],
)
def test_a_full_name_has_its_tag_and_no_default_registry(name: str, full: str) -> None:
    assert full_name(name) == full


def test_parameters_are_counted_where_the_model_says_how_many() -> None:
    assert estimate_billions(details(494_032_768, "900M"), "x:7b") == pytest.approx(0.494032768)


@pytest.mark.parametrize(("size", "billions"), [("8.0B", 8.0), ("567M", 0.567), ("7B", 7.0)])
def test_else_they_are_read_from_ollamas_own_words(size: str, billions: float) -> None:
    assert estimate_billions(details(size=size), "x:1b") == pytest.approx(billions)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen2:0.5b", 0.5),
        ("mixtral:8x7b-instruct-v0.1-q4_0", 56.0),
        ("gemma3:270m", 0.27),
        ("hf.co/acme/Qwen3-0.6B-GGUF:Q8_0", 0.6),
    ],
)
def test_else_from_the_name(name: str, billions: float) -> None:
    assert estimate_billions(details(size=""), name) == pytest.approx(billions)


@pytest.mark.parametrize("name", ["phi3:mini", "llama3:latest", "phi3:medium-128k", "v2.5b1:x"])
def test_no_number_is_made_up(name: str) -> None:
    assert estimate_billions(details(), name) is None


@pytest.mark.parametrize(
    ("name", "registered"),
    [
        ("qwen2:0.5b", "qwen2_0.5b"),
        ("hf.co/acme/Qwen3-GGUF:Q8_0", "hf.co_acme_Qwen3-GGUF_Q8_0"),
        ("a" * 300 + ":latest", "a" * 200),
    ],
)
def test_a_registered_name_is_made_of_ollamas(name: str, registered: str) -> None:
    assert registered_name(name) == registered
    TypeAdapter(RegisteredName).validate_python(registered)
