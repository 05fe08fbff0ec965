"""Models whose encoder sees a page and whose decoder writes it down: TrOCR, Donut and Nougat."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from shared.errors import InvalidInputError
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import Generations, TransformersModel
from workers.inference.handlers.document_analysis import DocumentAnalysisHandler
from workers.inference.handlers.generation import Answer, Prompt, answer_of, tokenizer_of
from workers.inference.handlers.ocr import OcrHandler

_FIELD = "data.query"
_QUESTION, _ANSWER, _ANSWER_END = "<s_question>", "<s_answer>", "</s_answer>"
#: What Donut's checkpoints were trained for before they were trained for their task.
_PRETRAINING = {"<s_iitcdip>", "<s_synthdog>"}
#: Between the answers of several pages.
_BETWEEN_PAGES = "\n"


class PageOcrHandler(OcrHandler):
    """Has the text of an image written down."""

    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Decode and encode the image."""
        decoded = self.image_alone(call)
        return _page_prompt(model, decoded.image, None, {"image": decoded.metadata})


class PageDocumentHandler(DocumentAnalysisHandler):
    """Has an answer written for each page; where they are sampled, all from the same seed."""

    def preprocess(self, model: TransformersModel, call: InferenceCall) -> Generations:
        """Decode and encode the pages."""
        self.refuse_words(call)
        document = self.pages(call)
        metadata = {"document": document.metadata}
        query = call.data.get("query")
        prompts = [_page_prompt(model, image, query, metadata) for image in document.images]
        first = self.generation(model, call, prompts[0])
        others = (
            self.generation(model, call, prompt, seed=first.seed, lead=_BETWEEN_PAGES)
            for prompt in prompts[1:]
        )
        return Generations((first, *others))

    def postprocess(
        self, model: TransformersModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Return the answers together, and page by page."""
        answers = [
            answer_of(model, call, one, ids) for one, ids in zip(inputs.each, output, strict=True)
        ]
        first = inputs.each[0]
        numbers = first.metadata["document"]["page_numbers"]
        reasons = {answer.finish_reason for answer in answers}
        return {
            "answer": _BETWEEN_PAGES.join(answer.text for answer in answers),
            "pages": [
                {"page": number, "answer": answer.text, **_fields(model, answer)}
                for number, answer in zip(numbers, answers, strict=True)
            ],
            "metadata": {
                **first.metadata,
                "input_tokens": sum(one.prompt_tokens for one in inputs.each),
                "output_tokens": sum(len(answer.ids) for answer in answers),
                "finish_reason": "length" if "length" in reasons else "stop",
                "seed": first.seed,
            },
        }


def _page_prompt(
    model: TransformersModel, image: Image.Image, query: str | None, metadata: Mapping[str, Any]
) -> Prompt:
    """Encode a page, and with what the decoder is to begin."""
    inputs = {"pixel_values": model.processor(images=image, return_tensors="pt")["pixel_values"]}
    tokenizer = tokenizer_of(model)
    begin: str | None
    ends: tuple[str, ...] = ()
    if _takes_query(tokenizer):
        begin, ends = _question(tokenizer, query), (_ANSWER_END,)
    elif query is None:
        begin = _task_token(model)
    else:
        raise InvalidInputError(
            "this model writes down what it was trained for, and takes no query", field=_FIELD
        )
    if begin is None:  # the token that starts everything
        return Prompt(inputs, 1, _FIELD, metadata)
    ids = tokenizer(begin, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return Prompt(inputs | {"decoder_input_ids": ids}, ids.shape[1], _FIELD, metadata, ends)


def _takes_query(tokenizer: Any) -> bool:
    """Return whether the model was trained to answer questions."""
    return _QUESTION in tokenizer.get_added_vocab()


def _task_token(model: TransformersModel) -> str | None:
    """Return the token that one of Donut's models begins its task with; None for other models.

    It is what the model's configuration says, else the last one that was added of those that open
    something and that nothing closes.
    """
    tokenizer = tokenizer_of(model)
    added = tokenizer.get_added_vocab()
    start = model.model.generation_config.decoder_start_token_id
    if start is not None and _opens(token := str(tokenizer.convert_ids_to_tokens(start))):
        return token
    found = [
        token
        for token in sorted(added, key=lambda token: added[token])
        if _opens(token) and token not in _PRETRAINING and f"</{token[1:]}" not in added
    ]
    return found[-1] if found else None


def _opens(token: str) -> bool:
    return token.startswith("<s_") and token.endswith(">")


def _question(tokenizer: Any, query: str | None) -> str:
    if query is None:
        raise InvalidInputError("this model answers questions: give a query", field=_FIELD)
    task = "<s_docvqa>" if "<s_docvqa>" in tokenizer.get_added_vocab() else ""
    return f"{task}{_QUESTION}{query}</s_question>{_ANSWER}"


def _fields(model: TransformersModel, answer: Answer) -> dict[str, Any]:
    """Return what one of Donut's models writes down in tags, such as a receipt's items."""
    tokenizer = tokenizer_of(model)
    if _takes_query(tokenizer) or not hasattr(model.processor, "token2json"):
        return {}
    tagged = tokenizer.decode(answer.ids)
    for token in (tokenizer.eos_token, tokenizer.pad_token):
        tagged = tagged.replace(token, "")
    return {"fields": model.processor.token2json(tagged)}
