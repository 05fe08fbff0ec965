"""Requests about documents: cancelled, and refused."""

from typing import Any

import pytest

from shared.errors import CancelledError, InvalidInputError, UnsupportedTaskError
from tests.cancelling import CancelAfter
from tests.integration.vision.stack import (
    TOKENS,
    VisionStack,
    noise,
    pdf,
    uri,
)

TASK = "document-analysis"
PDF = pdf(noise(1), noise(2), noise(3))
PAGES = uri(PDF, "application/pdf")


@pytest.mark.parametrize("beams", [1, 3])
def test_a_cancel_ends_the_page_and_those_after_it(stack: VisionStack, beams: int) -> None:
    data = {"document": PAGES, "query": "who?"}
    stack.ask(TASK, "donut", data)  # warm
    counted = CancelAfter(10_000)
    stack.ask(TASK, "donut", data, token=counted, num_beams=beams)
    token = CancelAfter(counted.looks - TOKENS - TOKENS // 2)
    with pytest.raises(CancelledError):
        stack.ask(TASK, "donut", data, num_beams=beams, token=token)
    assert token.looks <= counted.looks - TOKENS


DOCUMENT = {"document": uri(noise(1))}
READ = {"query": "who?", "words": ["a"], "boxes": [[0, 0, 9, 9]]}


@pytest.mark.parametrize(
    ("name", "data", "options", "field"),
    [
        ("llava", {}, {}, "data.document"),
        ("llava", {**DOCUMENT, "query": ""}, {}, "data.query"),
        ("llava", {**DOCUMENT, "question": "?"}, {}, "data.question"),
        ("llava", DOCUMENT, {"page": 2}, "options.page"),
        ("llava", DOCUMENT, {"page": 0}, "options.page"),
        ("llava", {**DOCUMENT, **READ}, {}, "data.words"),
        ("donut", DOCUMENT, {}, "data.query"),
        ("receipts", {**DOCUMENT, "query": "?"}, {}, "data.query"),
        ("layoutlmv3", {**DOCUMENT, **READ, "query": None}, {}, "data.query"),
        ("layoutlmv3", {**DOCUMENT, "query": "who?"}, {}, "data.words"),
        ("layoutlmv3", {**DOCUMENT, **READ, "boxes": []}, {}, "data.boxes"),
        ("layoutlmv3", {**DOCUMENT, **READ, "boxes": [[0, 0, 9, 1001]]}, {}, "data.boxes"),
        ("layoutlmv3", {**DOCUMENT, **READ, "words": [3]}, {}, "data.words"),
        ("layoutlmv3", {**DOCUMENT, **READ, "query": "who " * 40}, {}, "data.query"),
        ("layoutlmv3", {**DOCUMENT, **READ, "document": PAGES}, {}, "data.words"),
        ("layoutlmv3", {**DOCUMENT, **READ}, {"do_sample": True}, "options.do_sample"),
    ],
)
def test_a_wrong_request_names_its_field(
    stack: VisionStack, name: str, data: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        stack.ask(TASK, name, data, **options)
    assert caught.value.field == field


def test_a_model_that_only_reads_answers_no_questions(stack: VisionStack) -> None:
    with pytest.raises(UnsupportedTaskError, match="cannot do"):
        stack.ask(TASK, "trocr", DOCUMENT)
