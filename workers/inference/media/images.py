"""Still images."""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from shared.media.errors import corrupt, too_large, unsupported
from shared.settings import MediaSettings
from workers.inference.media.sources import Source, opened

#: Never those formats of Pillow that start other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_TYPES = frozenset(f"image/{name.lower()}" for name in _FORMATS)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
#: What Pillow raises for broken files, by format and by where they break.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error)


@dataclass(frozen=True)
class DecodedImage:
    """An image as models take it."""

    #: In mode RGB: upright as its EXIF says, what is transparent on white.
    image: Image.Image
    #: ``media_type``, ``width`` and ``height`` (of the upright image): for the result.
    metadata: dict[str, Any]


def decode_image(
    source: Source, *, limits: MediaSettings, field: str = "data.image"
) -> DecodedImage:
    """Decode an image; of an animation, its first frame."""
    with opened(source, field) as (file, media_type):
        if media_type not in _TYPES:
            raise unsupported(
                f"{media_type} is not read as an image: {', '.join(_FORMATS)} are", field
            )
        image = _decoded(file, limits.max_image_pixels, field)
    return DecodedImage(
        image, {"media_type": media_type, "width": image.width, "height": image.height}
    )


def _decoded(file: BinaryIO, max_pixels: int, field: str) -> Image.Image:
    try:
        # Reads the header; pixels come with the first use of them.
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise too_large(
                    f"the image has {width} x {height} pixels; at most {max_pixels} are read", field
                )
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _on_white(image)
    except _BOMBS:
        raise too_large(
            f"the image has more pixels than the {max_pixels} that are read", field
        ) from None
    except MemoryError:
        raise
    except _BROKEN as error:
        raise corrupt(f"the image is truncated or broken: {error}", field) from None


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image in RGB; what shines through it is white."""
    if image.mode.startswith("I;16"):  # shades that Pillow would cut off instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer.getchannel("A"))
    return white
