"""Media for handlers: from the value of a request's field to images, waveforms and frames."""

from workers.inference.media.audio import DecodedAudio, decode_audio
from workers.inference.media.documents import DecodedDocument, decode_document
from workers.inference.media.images import DecodedImage, decode_image
from workers.inference.media.loader import MediaLoader, OpenedMedia
from workers.inference.media.video import DecodedVideo, decode_video

__all__ = [
    "DecodedAudio",
    "DecodedDocument",
    "DecodedImage",
    "DecodedVideo",
    "MediaLoader",
    "OpenedMedia",
    "decode_audio",
    "decode_document",
    "decode_image",
    "decode_video",
]
