"""Answers are found among words as transformers' own pipeline finds them."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from tests.integration.vision.stack import (
    VisionStack,
    noise,
    pdf,
    uri,
)

TASK = "document-analysis"
PDF = pdf(noise(1), noise(2), noise(3))
PAGES = uri(PDF, "application/pdf")
#: More words than the models take at once.
WORDS = [f"{word}{number}" for number in range(12) for word in ("fox", "dog", "jumps")]
BOXES = [[20 * n, 5 + n, 20 * n + 15, 25 + n] for n in range(len(WORDS))]


@pytest.mark.parametrize("query", ["who jumps?", "what is it?"])
def test_layoutlm_finds_what_the_pipeline_finds(stack: VisionStack, query: str) -> None:
    data = {"document": uri(noise(1)), "query": query, "words": WORDS, "boxes": BOXES}
    result = stack.ask(TASK, "layoutlm", data)

    model, tokenizer = stack.direct("layoutlm", "LayoutLMForQuestionAnswering")
    reference: Any = pipeline("document-question-answering", model=model, tokenizer=tokenizer)
    (expected,) = reference(
        image=None, question=query, word_boxes=list(zip(WORDS, BOXES, strict=True))
    )
    assert result["metadata"]["windows"] > 1
    assert result["answer"] == expected["answer"]
    assert result["score"] == pytest.approx(expected["score"], rel=1e-5)
    assert result["word_indices"] == list(range(expected["start"], expected["end"] + 1))
    assert result["page"] == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_layoutlmv3_finds_the_likeliest_span_and_looks_at_the_page(
    stack: VisionStack, seed: int
) -> None:
    words, boxes = WORDS[:6], BOXES[:6]
    data = {"document": uri(noise(seed)), "query": "who?", "words": words, "boxes": boxes}
    result = stack.ask(TASK, "layoutlmv3", data)

    model, processor = stack.direct("layoutlmv3", "LayoutLMv3ForQuestionAnswering")
    encoded = processor(noise(seed), "who?", words, boxes=boxes, return_tensors="pt")
    with torch.no_grad():
        output = model(**encoded)
    of_words = np.array([side == 1 for side in encoded.sequence_ids(0)])
    asked = of_words.copy()
    asked[0] = True  # where there would be no answer
    start, end = (
        torch.softmax(logits[0, : len(asked)][torch.from_numpy(asked)], 0)[1:].numpy()
        for logits in (output.start_logits, output.end_logits)
    )
    scores = np.tril(np.triu(np.outer(start, end)), 14)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    word_ids = [word for word, wanted in zip(encoded.word_ids(0), of_words, strict=True) if wanted]
    assert result["answer"] == " ".join(words[word_ids[first] : word_ids[last] + 1])
    assert result["score"] == pytest.approx(float(scores.max()), rel=1e-5)


def test_layoutlm_answers_from_the_likeliest_page(stack: VisionStack) -> None:
    pages = [(WORDS[9 * n : 9 * n + 9], BOXES[:9]) for n in range(3)]
    words, boxes = [page[0] for page in pages], [page[1] for page in pages]
    data = {"document": PAGES, "query": "who?", "words": words, "boxes": boxes}
    whole = stack.ask(TASK, "layoutlmv3", data)

    single = [
        stack.ask(TASK, "layoutlmv3", {**data, "words": words[n], "boxes": boxes[n]}, page=n + 1)
        for n in range(3)
    ]
    assert len({one["score"] for one in single}) == 3
    best = max(single, key=lambda one: float(one["score"]))
    assert whole["answer"] == best["answer"]
    assert whole["page"] == best["page"]


def test_a_page_without_words_has_no_answer(stack: VisionStack) -> None:
    data = {"document": uri(noise(1)), "query": "who?", "words": [[]], "boxes": [[]]}
    result = stack.ask(TASK, "layoutlm", data)
    assert (result["answer"], result["score"], result["page"]) == ("", 0.0, None)
