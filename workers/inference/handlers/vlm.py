"""Questions about an image, on models that see."""

from collections.abc import Mapping
from typing import Any

from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.generation import Prompt
from workers.inference.handlers.image_text import ImageTextHandler, image_prompt


class VlmHandler(ImageTextHandler):
    """Puts the image before the prompt."""

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``image``, a medium, and ``prompt``, a text."""
        self.check_data(data, "image", prompt=True)

    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Decode the image; encode both."""
        decoded = self.media.image(call.data["image"], "data.image", call.token)
        return image_prompt(
            model,
            [decoded.image],
            call.data["prompt"],
            field="data.prompt",
            metadata={"image": decoded.metadata},
        )
