"""Pages are looked at, or read one by one, as transformers does it."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.integration.vision.stack import (
    TOKENS,
    VisionStack,
    chat,
    generate,
    noise,
    pdf,
    uri,
)
from tests.tiny_page_models import RECEIPT_TOKENS, tiny_donut
from workers.inference.handlers.document_analysis import QUERY
from workers.inference.media import decode_document

TASK = "document-analysis"
PDF = pdf(noise(1), noise(2), noise(3))
PAGES = uri(PDF, "application/pdf")


def _images(stack: VisionStack, page: int | None) -> tuple[Any, ...]:
    return decode_document(PDF, limits=stack.settings.media, page=page).images


@pytest.mark.parametrize("page", [None, 2])
@pytest.mark.parametrize("query", [None, "what is the total?"])
@pytest.mark.parametrize("name", ["llava", "qwen2-vl"])
def test_a_model_that_sees_looks_at_the_pages(
    stack: VisionStack, generated: list[list[int]], name: str, query: str | None, page: int | None
) -> None:
    data = {"document": PAGES} | ({"query": query} if query else {})
    result = stack.ask(TASK, name, data, **({"page": page} if page else {}))

    model, processor = stack.direct(name, "AutoModelForImageTextToText")
    parts = [{"type": "image", "image": image} for image in _images(stack, page)]
    expected = generate(model, chat(processor, parts, query or QUERY))
    assert generated == [expected]
    answer = expected[result["metadata"]["input_tokens"] :]
    assert result["answer"] == processor.tokenizer.decode(answer, skip_special_tokens=True)
    assert result["metadata"]["document"]["pages"] == 3
    assert result["metadata"]["document"]["page_numbers"] == ([page] if page else [1, 2, 3])


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"do_sample": True, "seed": 3}],
    ids=["greedy", "beams", "sampling"],
)
@pytest.mark.parametrize(
    ("name", "query", "begin"),
    [
        ("donut", "who?", "<s_docvqa><s_question>who?</s_question><s_answer>"),
        ("receipts", None, "<s_receipt>"),
    ],
)
def test_donut_reads_page_by_page(
    stack: VisionStack,
    generated: list[list[int]],
    name: str,
    query: str | None,
    begin: str,
    options: dict[str, Any],
) -> None:
    pieces: list[str] = []
    data = {"document": PAGES, "query": query}
    result = stack.ask(TASK, name, data, on_token=pieces.append, **options)

    model, processor = stack.direct(name, "VisionEncoderDecoderModel")
    ids = processor.tokenizer(begin, add_special_tokens=False, return_tensors="pt").input_ids
    texts = []
    for image in _images(stack, None):
        encoded = processor(images=image, return_tensors="pt")
        inputs = {"pixel_values": encoded.pixel_values, "decoder_input_ids": ids}
        expected = generate(model, inputs, **options)
        assert generated.pop(0) == expected
        answer = expected[ids.shape[1] :]
        texts.append(processor.tokenizer.decode(answer, skip_special_tokens=True))
    assert [page["answer"] for page in result["pages"]] == texts
    assert len(set(texts)) == 3
    assert result["answer"] == "\n".join(texts) == "".join(pieces)
    assert result["metadata"]["output_tokens"] == 3 * TOKENS


def _have_said(directory: Path, said: int, instead: int) -> None:
    """Have a model say one token where it said another."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    head = weights["decoder.lm_head.weight"]
    head[said] = head[instead] * 1.01
    save_file(weights, file, metadata={"format": "pt"})


def test_donut_ends_the_answer_where_it_closes_it(
    stack: VisionStack, generated: list[list[int]]
) -> None:
    data = {"document": uri(noise(1)), "query": "who?"}
    tokens = stack.ask(TASK, "donut", data)["metadata"]["input_tokens"]
    third = generated.pop()[tokens + 2]
    directory = stack.publish("closing", tiny_donut)
    _, processor = stack.direct("closing", "VisionEncoderDecoderModel")
    end = processor.tokenizer.convert_tokens_to_ids("</s_answer>")
    _have_said(directory, end, instead=third)

    pieces: list[str] = []
    result = stack.ask(TASK, "closing", data, on_token=pieces.append)

    ids = generated.pop()[tokens:]
    assert end in ids[:3]
    assert len(ids) == TOKENS
    assert result["answer"] == processor.tokenizer.decode(ids[: ids.index(end)])
    assert result["answer"] == "".join(pieces)
    assert result["metadata"]["finish_reason"] == "stop"


def test_a_receipt_comes_in_fields(stack: VisionStack, generated: list[list[int]]) -> None:
    directory = stack.publish("totals", tiny_donut, tokens=RECEIPT_TOKENS)
    _, processor = stack.direct("totals", "VisionEncoderDecoderModel")
    tokenizer = processor.tokenizer
    stack.ask(TASK, "receipts", {"document": uri(noise(1))})
    said = list(dict.fromkeys(generated.pop()[1:]))
    for token, instead in (("<s_total>", said[0]), ("</s_total>", said[2])):
        _have_said(directory, tokenizer.convert_tokens_to_ids(token), instead)

    (page,) = stack.ask(TASK, "totals", {"document": uri(noise(1))})["pages"]

    assert page["fields"] == processor.token2json(tokenizer.decode(generated.pop()[1:]))
    assert "total" in page["fields"]
