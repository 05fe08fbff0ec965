"""What a model thinks before it answers is told apart from the answer."""

from collections.abc import Iterator
from typing import Any

import pytest

from shared.errors import InvalidInputError
from tests.integration.vision.stack import TOKENS, VisionStack, generate, spy_on_generate
from tests.tiny_models import CHAT_TEMPLATE
from tests.tiny_thinking_models import ENDLESS, R1_TEMPLATE, SCRIPT, tiny_thinker

CHAT = [{"role": "user", "content": "how many legs has a fox?"}]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VisionStack]:
    stack = VisionStack(tmp_path_factory.mktemp("thinking"))
    stack.publish("qwen", tiny_thinker)
    stack.publish("glm", tiny_thinker, script=(">", "Ġ", *SCRIPT[1:]))
    stack.publish("r1", tiny_thinker, chat_template=R1_TEMPLATE)
    stack.publish("endless", tiny_thinker, script=ENDLESS)
    stack.publish("talker", tiny_thinker, script=(">", "Ċ", "x", "</think>", "y", "</s>"))
    words = (">", *"<think>")
    stack.publish("words", tiny_thinker, script=words, tags=(), chat_template=CHAT_TEMPLATE)
    yield stack
    stack.manager.close()


def ask(stack: VisionStack, name: str, **more: Any) -> tuple[str, str | None, str]:
    """Return the answer, the thought and how it ended."""
    result = stack.ask("text-generation", name, {"inputs": CHAT}, **more)
    metadata = result["metadata"]
    return result["generated_text"], metadata.get("thinking"), metadata["finish_reason"]


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", ["qwen", "glm", "r1"])
def test_a_thought_is_no_part_of_the_answer(
    stack: VisionStack, name: str, options: dict[str, Any]
) -> None:
    pieces: list[str] = []
    assert ask(stack, name, on_token=pieces.append, **options) == ("xyz", "ab", "stop")
    assert "".join(pieces) == "xyz"


def test_the_tokens_are_those_of_generate(
    stack: VisionStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = spy_on_generate(monkeypatch)
    ask(stack, "qwen")
    model, tokenizer = stack.direct("qwen", "AutoModelForCausalLM")
    encoded = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt")
    assert generated == [generate(model, encoded)]


@pytest.mark.parametrize(("think", "thought"), [(True, "ab"), (False, None)])
def test_thinking_can_be_turned_off(stack: VisionStack, think: bool, thought: str | None) -> None:
    assert ask(stack, "qwen", think=think) == ("xyz", thought, "stop")


@pytest.mark.parametrize("name", ["qwen", "r1"])
def test_an_answer_that_is_cut_within_the_thought_is_empty(stack: VisionStack, name: str) -> None:
    pieces: list[str] = []
    tokens = 2 if name == "qwen" else 1
    cut = ask(stack, name, max_new_tokens=tokens, on_token=pieces.append)
    assert cut == ("", "a", "length")
    assert not pieces


def test_stop_strings_end_the_answer_and_not_the_thought(stack: VisionStack) -> None:
    pieces: list[str] = []
    cut = ask(stack, "qwen", stop=["b", "think", "y"], on_token=pieces.append)
    assert cut == ("x", "ab", "stop")
    assert "".join(pieces) == "x"


def test_a_thought_has_room_where_the_request_does_not_say(stack: VisionStack) -> None:
    result = stack.ask("text-generation", "endless", {"inputs": CHAT})
    assert result["metadata"]["output_tokens"] > TOKENS
    kept = stack.ask("text-generation", "endless", {"inputs": CHAT}, think=False)
    assert kept["metadata"]["output_tokens"] == TOKENS


@pytest.mark.parametrize(
    ("name", "text"),
    [("words", "<think><thin"), ("talker", "\nx</think>y")],
    ids=["no-token", "late"],
)
def test_what_only_looks_like_a_thought_is_text(stack: VisionStack, name: str, text: str) -> None:
    pieces: list[str] = []
    assert ask(stack, name, on_token=pieces.append)[:2] == (text, None)
    assert "".join(pieces) == text


def test_a_text_is_not_told_to_think(stack: VisionStack) -> None:
    with pytest.raises(InvalidInputError, match="give a chat") as caught:
        stack.ask("text-generation", "qwen", {"inputs": "hello"}, think=True)
    assert caught.value.field == "options.think"
