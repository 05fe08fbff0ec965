"""Models that see are asked in text alone too, and answer as transformers answers them."""

from typing import Any

import pytest

from shared.errors import InvalidInputError, UnsupportedTaskError
from tests.integration.vision.stack import VisionStack, asked, generate, noise, uri

TEXT = "text-generation"
SEEING = ["llava", "smolvlm", "qwen2-vl", "llava-next-video", "gemma3"]
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what jumps over the lazy dog?"},
    {"role": "assistant", "content": "the fox"},
    {"role": "user", "content": "why?"},
]
OPTIONS = [
    pytest.param({}, id="greedy"),
    pytest.param({"num_beams": 3, "length_penalty": 2.0}, id="beams"),
    pytest.param({"do_sample": True, "seed": 7, "top_k": 50, "temperature": 1.5}, id="sampling"),
]


def encoded(processor: Any, messages: list[dict[str, str]]) -> Any:
    """Encode a chat as the documentation of models that see does."""
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    return processor.apply_chat_template(
        parts, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", SEEING)
def test_a_chat_is_answered_as_generate_does(
    stack: VisionStack, generated: list[list[int]], name: str, options: dict[str, Any]
) -> None:
    # After an image, which a model may remember the places of.
    stack.ask("vlm", name, {"image": uri(noise(1)), "prompt": "what is it?"})
    result = stack.ask(TEXT, name, {"inputs": CHAT}, **options)

    model, processor = stack.direct(name, "AutoModelForImageTextToText")
    expected = generate(model, encoded(processor, CHAT), **options)
    assert asked(generated, result, processor) == expected
    assert result["metadata"]["cache_hit"]


@pytest.mark.parametrize("name", [*SEEING, "llava-plain"])
def test_a_text_is_answered_as_generate_does(
    stack: VisionStack, generated: list[list[int]], name: str
) -> None:
    result = stack.ask(TEXT, name, {"inputs": "the quick brown fox"})
    model, processor = stack.direct(name, "AutoModelForImageTextToText")
    direct = processor(text="the quick brown fox", return_tensors="pt")
    assert asked(generated, result, processor) == generate(model, direct)
    other = stack.ask(TEXT, name, {"inputs": "hello"})
    assert other["generated_text"] != result["generated_text"]


@pytest.mark.parametrize("name", SEEING)
def test_an_answer_streams_and_ends_before_a_stop_string(stack: VisionStack, name: str) -> None:
    pieces: list[str] = []
    whole = stack.ask(TEXT, name, {"inputs": CHAT}, max_new_tokens=40, on_token=pieces.append)
    text = whole["generated_text"]
    assert "".join(pieces) == text
    stop = text[len(text) // 2 :][:2]

    cut = stack.ask(TEXT, name, {"inputs": CHAT}, max_new_tokens=40, stop=stop)
    assert cut["generated_text"] == text[: text.index(stop)]
    assert cut["metadata"]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("name", "word"), [("llava", "<image>"), ("qwen2-vl", "<|image_pad|>"), ("gemma3", "<image>")]
)
def test_what_stands_for_an_image_is_only_a_word(stack: VisionStack, name: str, word: str) -> None:
    chat = [{"role": "user", "content": f"what does {word} mean?"}]
    assert stack.ask(TEXT, name, {"inputs": chat})["metadata"]["output_tokens"] > 0


def test_a_template_that_knows_of_no_thoughts_is_not_disturbed(stack: VisionStack) -> None:
    plain = stack.ask(TEXT, "llava", {"inputs": CHAT})
    told = stack.ask(TEXT, "llava", {"inputs": CHAT}, think=False)
    assert told["generated_text"] == plain["generated_text"]


def test_models_that_only_read_pages_do_not_chat(stack: VisionStack) -> None:
    with pytest.raises(UnsupportedTaskError):
        stack.ask(TEXT, "trocr", {"inputs": CHAT})
    with pytest.raises(InvalidInputError, match="no chat template"):
        stack.ask(TEXT, "llava-plain", {"inputs": CHAT})
