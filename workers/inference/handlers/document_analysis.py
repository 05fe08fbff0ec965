"""Questions about a document: an image, or the pages of a PDF."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from shared.errors import InvalidInputError
from shared.tasks import DocumentOptions, Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.document_words import NAMES, words_of
from workers.inference.handlers.generation import Prompt
from workers.inference.handlers.image_text import ImageTextHandler, image_prompt
from workers.inference.media import DecodedDocument, decode_document

QUERY = "Describe this document."
FIELD = "data.document"


class DocumentAnalysisHandler(ImageTextHandler):
    """Puts all pages before the query, on models that see several images at once."""

    options_model: ClassVar[type[Options]] = DocumentOptions
    answer_name: ClassVar[str] = "answer"

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``document``, a medium; a ``query``; and, for some models, words and boxes."""
        rest = {name: value for name, value in data.items() if name not in NAMES}
        self.check_data(rest, "document", query=False)
        words_of(data)

    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Decode the pages; encode them with the query."""
        self.refuse_words(call)
        document = self.pages(call)
        query = call.data.get("query")
        prompt = image_prompt(
            model,
            document.images,
            query or QUERY,
            field="data.query" if query else FIELD,
            metadata={"document": document.metadata},
        )
        return replace(prompt, source=FIELD)

    def pages(self, call: InferenceCall) -> DecodedDocument:
        """Decode the page that the options choose, or all."""
        options = call.options
        assert isinstance(options, DocumentOptions)  # noqa: S101 - parsed by options_model
        with self.media.open(call.data["document"], FIELD, call.token) as media:
            return decode_document(
                media.file,
                limits=self.settings.media,
                page=options.page,
                field=FIELD,
                page_field="options.page",
                token=call.token,
            )

    @staticmethod
    def refuse_words(call: InferenceCall) -> None:
        """Refuse words for a model that reads the pages itself."""
        for name in NAMES:
            if call.data.get(name) is not None:
                raise InvalidInputError(
                    f"this model reads the document itself, and takes no {name}",
                    field=f"data.{name}",
                )
