"""Questions about images are answered token for token as transformers answers them."""

from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.integration.vision.stack import (
    VisionStack,
    asked,
    chat,
    generate,
    noise,
    uri,
)
from tests.tiny_vision_models import tiny_got_ocr
from workers.inference.handlers.ocr import PROMPT as OCR_PROMPT

IMAGE_TEXT = "AutoModelForImageTextToText"
PROMPT = "what is it?"
SEEING = ["llava", "smolvlm", "qwen2-vl", "llava-next-video"]
OPTIONS = [
    pytest.param({}, id="greedy"),
    pytest.param({"num_beams": 3, "length_penalty": 2.0}, id="beams"),
    pytest.param({"do_sample": True, "seed": 7, "top_k": 50, "temperature": 1.5}, id="sampling"),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", SEEING)
def test_vlm_answers_as_generate_does(
    stack: VisionStack, generated: list[list[int]], name: str, options: dict[str, Any]
) -> None:
    result = stack.ask("vlm", name, {"image": uri(noise(1)), "prompt": PROMPT}, **options)

    model, processor = stack.direct(name, IMAGE_TEXT)
    encoded = chat(processor, [{"type": "image", "image": noise(1)}], PROMPT)
    assert asked(generated, result, processor) == generate(model, encoded, **options)
    assert result["metadata"]["image"] | {"width": 64, "height": 48} == result["metadata"]["image"]


@pytest.mark.parametrize("name", [*SEEING, "llava-plain"])
def test_vlm_depends_on_the_image_and_on_the_prompt(stack: VisionStack, name: str) -> None:
    questions = [(1, PROMPT), (2, PROMPT), (1, "where?")]
    answers = {
        stack.ask("vlm", name, {"image": uri(noise(seed)), "prompt": prompt})["generated_text"]
        for seed, prompt in questions
    }
    assert len(answers) == len(questions)


def test_without_a_chat_template_the_image_stands_before_the_prompt(
    stack: VisionStack, generated: list[list[int]]
) -> None:
    result = stack.ask("vlm", "llava-plain", {"image": uri(noise(1)), "prompt": PROMPT})
    placed = stack.ask(
        "vlm", "llava-plain", {"image": uri(noise(1)), "prompt": f"<image>\n{PROMPT}"}
    )

    model, processor = stack.direct("llava-plain", IMAGE_TEXT)
    encoded = processor(images=noise(1), text=f"<image>\n{PROMPT}", return_tensors="pt")
    assert asked(generated, placed, processor) == generate(model, encoded)
    assert asked(generated, result, processor) == generate(model, encoded)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["trocr", "receipts"])
def test_ocr_reads_as_generate_does(
    stack: VisionStack, generated: list[list[int]], name: str, options: dict[str, Any]
) -> None:
    result = stack.ask("ocr", name, {"image": uri(noise(1))}, **options)

    model, processor = stack.direct(name, "VisionEncoderDecoderModel")
    encoded = {"pixel_values": processor(images=noise(1), return_tensors="pt").pixel_values}
    if name == "receipts":
        tokenized = processor.tokenizer(
            "<s_receipt>", add_special_tokens=False, return_tensors="pt"
        )
        encoded["decoder_input_ids"] = tokenized.input_ids
    assert asked(generated, result, processor, "text") == generate(model, encoded, **options)
    assert stack.ask("ocr", name, {"image": uri(noise(2))})["text"] != result["text"]


@pytest.mark.parametrize("prompt", [None, "read this"])
@pytest.mark.parametrize("name", ["llava", "qwen2-vl"])
def test_ocr_tells_a_model_that_sees_to_read(
    stack: VisionStack, generated: list[list[int]], name: str, prompt: str | None
) -> None:
    data = {"image": uri(noise(1))} | ({"prompt": prompt} if prompt else {})
    result = stack.ask("ocr", name, data)

    model, processor = stack.direct(name, IMAGE_TEXT)
    encoded = chat(processor, [{"type": "image", "image": noise(1)}], prompt or OCR_PROMPT)
    assert asked(generated, result, processor, "text") == generate(model, encoded)
    assert stack.ask("ocr", name, {**data, "image": uri(noise(2))})["text"] != result["text"]


def test_got_ocr_gets_the_prompt_of_its_processor(
    stack: VisionStack, generated: list[list[int]]
) -> None:
    result = stack.ask("ocr", "got-ocr", {"image": uri(noise(1))})

    model, processor = stack.direct("got-ocr", IMAGE_TEXT)
    encoded = processor(images=noise(1), return_tensors="pt")
    assert asked(generated, result, processor, "text") == generate(model, encoded)
    assert stack.ask("ocr", "got-ocr", {"image": uri(noise(2))})["text"] != result["text"]


def test_got_ocr_ends_with_its_turn(stack: VisionStack, generated: list[list[int]]) -> None:
    """The turn's end is not among what its configuration says ends an answer."""
    result = stack.ask("ocr", "got-ocr", {"image": uri(noise(1))})
    answer = generated.pop()[result["metadata"]["input_tokens"] :]
    directory = stack.publish("got-ocr-ends", tiny_got_ocr)
    file = directory / "model.safetensors"
    weights = load_file(file)
    _, processor = stack.direct("got-ocr", IMAGE_TEXT)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    head = weights["language_model.lm_head.weight"]
    head[end] = head[answer[-1]] * 1.01
    save_file(weights, file, metadata={"format": "pt"})

    ended = stack.ask("ocr", "got-ocr-ends", {"image": uri(noise(1))}, max_new_tokens=30)

    assert generated.pop()[-1] == end
    assert ended["metadata"]["finish_reason"] == "stop"
    assert result["text"].startswith(ended["text"])
