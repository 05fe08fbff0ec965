"""What the tasks share whose models look at images or video and answer in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image

from shared.errors import InvalidInputError, ModelLoadError
from shared.settings import Settings
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.generation import GeneratingHandler, Prompt
from workers.inference.media import DecodedVideo, MediaLoader


class ImageTextHandler(GeneratingHandler):
    """Opens the media that a request names, and puts them before a prompt."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.media = MediaLoader(settings.media)

    def check_data(self, data: Mapping[str, Any], medium: str, **texts: bool) -> None:
        """Take a medium, and texts, each of which must be there or may be."""
        if unknown := sorted(data.keys() - {medium, *texts}):
            known = ", ".join(map(repr, (medium, *texts)))
            raise InvalidInputError(
                f"the task takes {known} and not {unknown[0]!r}", field=f"data.{unknown[0]}"
            )
        self.media.check(data.get(medium), f"data.{medium}")
        for name, needed in texts.items():
            text = data.get(name)
            if (text is not None or needed) and not (isinstance(text, str) and text.strip()):
                raise InvalidInputError(
                    f"{name} must be a text, and not empty", field=f"data.{name}"
                )


def image_prompt(
    model: TransformersModel,
    images: Sequence[Image.Image],
    text: str,
    *,
    field: str,
    metadata: Mapping[str, Any],
) -> Prompt:
    """Put images before a text; ``field`` is to blame if the model does not take them."""
    parts = [{"type": "image", "image": image} for image in images]
    inputs = _encode(model.processor, parts, text, field, {})
    return _prompt(model, inputs, field, metadata)


def video_prompt(
    model: TransformersModel,
    video: DecodedVideo,
    text: str,
    *,
    field: str,
    metadata: Mapping[str, Any],
) -> Prompt:
    """Put a video before a text; where the model knows only images, its frames."""
    if getattr(model.processor, "video_processor", None) is None:
        return image_prompt(model, video.images, text, field=field, metadata=metadata)
    height, width = video.frames.shape[1:3]
    described = {
        "total_num_frames": video.total_frames,
        "fps": video.fps or None,
        "duration": video.metadata["duration_seconds"],
        "frames_indices": list(video.indices),
        "width": width,
        "height": height,
    }
    parts = [{"type": "video", "video": video.frames}]
    arguments = {"do_sample_frames": False, "video_metadata": [described]}
    inputs = _encode(model.processor, parts, text, field, arguments)
    return _prompt(model, inputs, field, metadata)


def _encode(
    processor: Any,
    parts: Sequence[Mapping[str, Any]],
    text: str,
    field: str,
    arguments: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Encode through the model's chat template; without one, as its placeholders and the text."""
    if not hasattr(processor, "image_processor"):
        raise ModelLoadError(
            "the model has no processor of images: preprocessor_config.json is missing",
            code="missing_processor",
        )
    content = [*parts, {"type": "text", "text": text}]
    try:
        if processor.chat_template is None:
            encoded = _encode_plainly(processor, parts, text, arguments)
        else:
            encoded = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs=dict(arguments),
            )
    except (TemplateError, ValueError) as error:
        raise InvalidInputError(
            f"the model does not take this input: {error}", field=field
        ) from None
    return {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor)}


def _encode_plainly(
    processor: Any, parts: Sequence[Mapping[str, Any]], text: str, arguments: Mapping[str, Any]
) -> Any:
    kind = parts[0]["type"]
    placeholder = getattr(processor, f"{kind}_token", None)
    if placeholder is not None and placeholder not in text:  # else it says itself where they go
        text = f"{placeholder}\n" * len(parts) + text
    media = {f"{kind}s": [part[kind] for part in parts]}
    return processor(text=text, return_tensors="pt", **media, **arguments)


def _prompt(
    model: TransformersModel, inputs: Mapping[str, Any], field: str, metadata: Mapping[str, Any]
) -> Prompt:
    """Count the tokens that come back: of models with an encoder, only the one that starts."""
    starts_anew = model.model.config.is_encoder_decoder
    tokens = 1 if starts_anew else int(inputs["input_ids"].shape[1])
    return Prompt(inputs, tokens, field, metadata)
