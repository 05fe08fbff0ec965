"""Models that find the answer among words that somebody else has read: LayoutLM and LayoutLMv3."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.pipelines.document_question_answering import select_starts_ends

from shared.errors import InvalidInputError
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import Forward, TransformersModel
from workers.inference.handlers.document_analysis import DocumentAnalysisHandler
from workers.inference.handlers.document_words import PageWords, words_of
from workers.inference.handlers.word_windows import Window, windows_of


@dataclass(frozen=True)
class Search(Forward):
    """The windows to look at, and what the result is made from."""

    windows: list[Window] = field(default_factory=list)
    pages: list[PageWords] = field(default_factory=list)
    metadata: Mapping[str, Any] = field(default_factory=dict)


class WordFindingHandler(DocumentAnalysisHandler):
    """Looks at all pages in windows that overlap; the likeliest answer of all is the answer."""

    def preprocess(self, model: TransformersModel, call: InferenceCall) -> Search:
        """Encode the query with the words of each page, and with its image if the model looks."""
        if unused := sorted(call.options.model_fields_set - {"page"}):
            raise InvalidInputError(
                f"this model generates nothing, and takes no {unused[0]}",
                field=f"options.{unused[0]}",
            )
        query, pages = call.data.get("query"), words_of(call.data)
        if query is None:
            raise InvalidInputError(
                "this model answers questions: give a query", field="data.query"
            )
        if pages is None:
            raise InvalidInputError(
                "this model cannot read: give the words of each page, and their boxes in "
                "thousandths of its width and height",
                field="data.words",
            )
        document = self.pages(call)
        if len(pages) != len(document.images):
            raise InvalidInputError(
                f"there are words for {len(pages)} pages, and {len(document.images)} are looked at",
                field="data.words",
            )
        windows = [
            window
            for index, (page, image) in enumerate(zip(pages, document.images, strict=True))
            if page.words
            for window in windows_of(model, query, page, index, image)
        ]
        return Search(
            batches=[window.inputs for window in windows],
            keep=_logits,
            windows=windows,
            pages=pages,
            metadata={"document": document.metadata},
        )

    def postprocess(
        self,
        model: TransformersModel,  # noqa: ARG002 - the handler's contract
        call: InferenceCall,  # noqa: ARG002
        inputs: Any,
        output: Any,
    ) -> dict[str, Any]:
        """Return the likeliest answer, its page and its words."""
        found = [
            (score, window.page_index, span)
            for window, logits in zip(inputs.windows, output, strict=True)
            for score, span in _spans(window, *logits)
        ]
        none: tuple[float, int | None, tuple[int, int]] = (0.0, None, (0, 0))
        score, index, (start, end) = max(found, key=itemgetter(0), default=none)
        words = [] if index is None else inputs.pages[index].words[start : end + 1]
        numbers = inputs.metadata["document"]["page_numbers"]
        return {
            "answer": " ".join(words),
            "score": score,
            "page": None if index is None else numbers[index],
            "word_indices": list(range(start, start + len(words))),
            "metadata": {
                **inputs.metadata,
                "input_tokens": sum(len(window.word_ids) for window in inputs.windows),
                "windows": len(inputs.windows),
            },
        }


def _logits(output: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return output.start_logits.float().cpu().numpy(), output.end_logits.float().cpu().numpy()


def _spans(
    window: Window, start: NDArray[np.float32], end: NDArray[np.float32]
) -> Iterator[tuple[float, tuple[int, int]]]:
    """Yield the likeliest answer of a window with its probability, if there is one."""
    tokens = len(window.word_ids)  # behind them are those of the image
    starts, ends, scores, _ = select_starts_ends(
        start[:, :tokens],
        end[:, :tokens],
        np.array(window.barred),
        window.inputs["attention_mask"].numpy(),
    )
    for first, last, score in zip(starts, ends, scores, strict=True):
        words = window.word_ids[first], window.word_ids[last]
        if words[0] is not None and words[1] is not None:
            yield float(score), (words[0], words[1])
