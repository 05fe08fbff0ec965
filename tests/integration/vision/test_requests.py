"""Requests to models that see: streamed, cancelled, and refused."""

from typing import Any

import pytest

from shared.errors import CancelledError, InvalidInputError, UnsupportedTaskError
from tests.cancelling import CancelAfter
from tests.integration.vision.stack import (
    TOKENS,
    VisionStack,
    noise,
    uri,
    video,
)

PROMPT = "what is it?"


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 4}])
@pytest.mark.parametrize(
    ("task", "name", "data", "answer"),
    [
        ("vlm", "llava", {"image": uri(noise(1)), "prompt": PROMPT}, "generated_text"),
        ("ocr", "trocr", {"image": uri(noise(1))}, "text"),
        ("ocr", "smolvlm", {"image": uri(noise(1))}, "text"),
        ("video-analysis", "qwen2-vl", {"video": uri(video(1), "video/mp4")}, "generated_text"),
    ],
)
def test_streamed_pieces_are_the_answer(
    stack: VisionStack,
    task: str,
    name: str,
    data: dict[str, Any],
    answer: str,
    options: dict[str, Any],
) -> None:
    pieces: list[str] = []
    result = stack.ask(task, name, data, max_new_tokens=60, on_token=pieces.append, **options)
    assert "".join(pieces) == result[answer]
    assert result[answer] == stack.ask(task, name, data, max_new_tokens=60, **options)[answer]
    assert len(pieces) > 5 or "num_beams" in options


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("task", "name", "data"),
    [
        ("vlm", "smolvlm", {"image": uri(noise(1)), "prompt": PROMPT}),
        ("ocr", "trocr", {"image": uri(noise(1))}),
        ("video-analysis", "llava-next-video", {"video": uri(video(1), "video/mp4")}),
    ],
)
def test_a_cancel_ends_the_generation_between_two_tokens(
    stack: VisionStack, task: str, name: str, data: dict[str, Any], beams: int
) -> None:
    stack.ask(task, name, data)  # warm
    counted = CancelAfter(10_000)
    stack.ask(task, name, data, token=counted, num_beams=beams)
    token = CancelAfter(counted.looks - TOKENS // 2)
    with pytest.raises(CancelledError):
        stack.ask(task, name, data, max_new_tokens=200, num_beams=beams, token=token)
    assert token.looks <= counted.looks


@pytest.mark.parametrize(
    ("task", "name", "data", "options", "field"),
    [
        ("vlm", "llava", {"prompt": PROMPT}, {}, "data.image"),
        ("vlm", "llava", {"image": uri(noise(1))}, {}, "data.prompt"),
        ("vlm", "llava", {"image": uri(noise(1)), "prompt": " "}, {}, "data.prompt"),
        ("vlm", "llava", {"image": uri(noise(1)), "prompt": "<image>"}, {}, "data.prompt"),
        ("vlm", "llava", {"image": uri(noise(1)), "prompt": "x" * 3000}, {}, "data.prompt"),
        ("vlm", "llava", {"image": uri(b"junk"), "prompt": PROMPT}, {}, "data.image"),
        ("vlm", "llava", {"image": uri(noise(1)), "text": PROMPT}, {}, "data.text"),
        ("vlm", "llava", {"image": uri(noise(1)), "prompt": PROMPT}, {"page": 1}, "options.page"),
        ("ocr", "trocr", {"image": uri(noise(1)), "prompt": PROMPT}, {}, "data.prompt"),
        ("ocr", "got-ocr", {"image": uri(noise(1)), "prompt": PROMPT}, {}, "data.prompt"),
        ("ocr", "trocr", {"image": uri(noise(1))}, {"max_length": 1}, "options.max_length"),
        ("video-analysis", "llava", {"video": uri(noise(1))}, {}, "data.video"),
        (
            "video-analysis",
            "llava",
            {"video": uri(video(1), "video/mp4")},
            {"num_frames": 11},
            "options.num_frames",
        ),
    ],
)
def test_a_wrong_request_names_its_field(
    stack: VisionStack,
    task: str,
    name: str,
    data: dict[str, Any],
    options: dict[str, Any],
    field: str,
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        stack.ask(task, name, data, **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("task", "name"), [("vlm", "llama"), ("vlm", "trocr"), ("video-analysis", "donut")]
)
def test_a_model_is_not_asked_for_what_it_cannot_do(
    stack: VisionStack, task: str, name: str
) -> None:
    data = {"image": uri(noise(1)), "prompt": PROMPT} if task == "vlm" else {"video": uri(video(1))}
    with pytest.raises(UnsupportedTaskError, match="cannot do"):
        stack.ask(task, name, data)
