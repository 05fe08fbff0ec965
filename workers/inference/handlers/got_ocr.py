"""GOT-OCR: without a chat template, as its processor knows the one prompt that it was made for."""

from typing import Any

from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.generation import (
    AnswerGeneration,
    Prompt,
    end_tokens,
    tokenizer_of,
)
from workers.inference.handlers.ocr import OcrHandler


class GotOcrHandler(OcrHandler):
    """Has the text of an image written down, up to the end of the model's turn."""

    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Decode the image; the processor puts it into its prompt."""
        decoded = self.image_alone(call)
        inputs = dict(model.processor(images=decoded.image, return_tensors="pt"))
        tokens = inputs["input_ids"].shape[1]
        return Prompt(inputs, tokens, "data.image", {"image": decoded.metadata})

    def generation(
        self, model: TransformersModel, call: InferenceCall, prompt: Prompt, **more: Any
    ) -> AnswerGeneration:
        """Return the generation; its configuration does not say that a turn's end is the end."""
        generation = super().generation(model, call, prompt, **more)
        turn_end = tokenizer_of(model).convert_tokens_to_ids(model.processor.message_end_token)
        generation.config.eos_token_id = sorted({*end_tokens(model), turn_end})
        return generation
