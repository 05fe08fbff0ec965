"""The text in an image, on models that see and do what they are told."""

from collections.abc import Mapping
from typing import Any, ClassVar

from shared.errors import InvalidInputError
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.generation import Prompt
from workers.inference.handlers.image_text import ImageTextHandler, image_prompt
from workers.inference.media import DecodedImage

PROMPT = "Write down all the text in this image, exactly as it stands there, and nothing else."


class OcrHandler(ImageTextHandler):
    """Tells the model to read."""

    answer_name: ClassVar[str] = "text"

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``image``, a medium; a ``prompt`` takes the place of ours."""
        self.check_data(data, "image", prompt=False)

    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Decode the image; encode it with the prompt."""
        decoded = self.media.image(call.data["image"], "data.image", call.token)
        prompt = call.data.get("prompt")
        return image_prompt(
            model,
            [decoded.image],
            prompt or PROMPT,
            field="data.prompt" if prompt else "data.image",
            metadata={"image": decoded.metadata},
        )

    def image_alone(self, call: InferenceCall) -> DecodedImage:
        """Decode the image for a model that cannot be told anything."""
        if call.data.get("prompt") is not None:
            raise InvalidInputError("this model reads, and takes no prompt", field="data.prompt")
        return self.media.image(call.data["image"], "data.image", call.token)
