"""A query and the words of a page, as many at once as LayoutLM and LayoutLMv3 take.

Both are encoded as transformers' pipeline for questions about documents does it. For LayoutLMv3
that pipeline forgets the image; here it is there, as in the model's own documentation.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from shared.errors import InvalidInputError
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.document_words import Box, PageWords
from workers.inference.handlers.generation import tokenizer_of

#: Tokens that two windows share, at most.
_MAX_STRIDE = 256
#: Where a tokenizer truncates belongs to the tokenizer, which all threads share.
_TOKENIZING = threading.Lock()
_START, _END = (0, 0, 0, 0), (1000, 1000, 1000, 1000)


@dataclass(frozen=True)
class Window:
    """One input of the model."""

    inputs: Mapping[str, torch.Tensor]
    page_index: int
    #: For each token its word; None for those of the query, and special ones.
    word_ids: list[int | None]
    #: For each token whether no answer may begin or end there.
    barred: list[bool]


def windows_of(
    model: TransformersModel, query: str, page: PageWords, page_index: int, image: Any
) -> Iterator[Window]:
    """Yield the windows of a page, which overlap."""
    tokenizer, config = tokenizer_of(model), model.model.config
    knows_boxes = config.model_type == "layoutlmv3"  # the tokenizer gives each token its box
    # Positions are counted from behind the padding's there.
    positions = config.max_position_embeddings - (config.pad_token_id + 1 if knows_boxes else 0)
    limit = min(tokenizer.model_max_length, positions)
    with _TOKENIZING:
        encoding = _encode(tokenizer, query, page, limit, knows_boxes=knows_boxes)
    seen = _seen(model, image)
    for number, ids in enumerate(encoding["input_ids"]):
        sides, word_ids = encoding.sequence_ids(number), encoding.word_ids(number)
        words = [word if side == 1 else None for word, side in zip(word_ids, sides, strict=True)]
        boxes = encoding["bbox"][number] if knows_boxes else _boxes(tokenizer, page, ids, words)
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {n: torch.tensor([encoding[n][number]]) for n in names if n in encoding}
        yield Window(
            inputs={**inputs, "bbox": torch.tensor([boxes]), **seen},
            page_index=page_index,
            word_ids=words,
            # The first token is where a model says that there is no answer.
            barred=[
                side != 1 and token != tokenizer.cls_token_id
                for side, token in zip(sides, ids, strict=True)
            ],
        )


def _encode(tokenizer: Any, query: str, page: PageWords, limit: int, *, knows_boxes: bool) -> Any:
    tokenizer.backend_tokenizer.no_truncation()
    query_tokens = len(tokenizer.backend_tokenizer.encode(query, add_special_tokens=False))
    if query_tokens > limit // 4:
        raise InvalidInputError(
            f"the query has {query_tokens} tokens, and the model takes {limit // 4}",
            field="data.query",
        )
    texts = (
        {"text": [query], "text_pair": [page.words], "boxes": [page.boxes]}
        if knows_boxes
        else {"text": query.split(), "text_pair": page.words, "is_split_into_words": True}
    )
    return tokenizer(
        **texts,
        max_length=limit,
        stride=min(limit // 2, _MAX_STRIDE),
        truncation="only_second",
        return_overflowing_tokens=True,
        return_token_type_ids=True,
    )


def _boxes(
    tokenizer: Any, page: PageWords, ids: list[int], word_ids: list[int | None]
) -> list[Box]:
    """Return the box of each token: its word's, and the corners of the page for the others."""
    others = [_END if token == tokenizer.sep_token_id else _START for token in ids]
    return [
        other if word is None else page.boxes[word]
        for word, other in zip(word_ids, others, strict=True)
    ]


def _seen(model: TransformersModel, image: Any) -> dict[str, torch.Tensor]:
    """Return what the model looks at: nothing, where it knows words and places only."""
    processor = getattr(model.processor, "image_processor", None)
    if processor is None:
        return {}
    pixels = processor(images=image, apply_ocr=False, return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixels}
