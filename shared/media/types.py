"""What media are: their kinds, and their types as their first bytes tell them."""

from enum import StrEnum

#: Bytes from the start of a file that ``media_type_of`` looks at.
HEAD_BYTES = 1024
#: The type of what is of no type known here.
UNKNOWN = "application/octet-stream"


class MediaKind(StrEnum):
    """What a medium is, whatever its format."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    DOCUMENT = "document"
    UNKNOWN = "unknown"


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
)
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
_BRANDS = {
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"avif": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heic",
    b"qt  ": "video/quicktime",
}


def media_type_of(head: bytes) -> str:
    """Return the media type of what starts with ``head``; names and declared types may lie."""
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    if head[:4] in {b"RIFF", b"RF64"}:
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if _starts_mpeg_audio(head):
        return "audio/mpeg"
    # Readers of PDF take what stands before the header, if it is short.
    return "application/pdf" if b"%PDF-" in head[:HEAD_BYTES] else UNKNOWN


def _starts_mpeg_audio(head: bytes) -> bool:
    """Return whether it starts with the header of an MPEG audio frame, layer III."""
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE6 == 0xE2  # the sync word, and layer III
        and head[2] >> 4 not in {0, 15}  # bit rates that there are
        and head[2] & 0x0C != 0x0C  # sampling rates that there are
    )


def kind_of(media_type: str) -> MediaKind:
    """Return what a medium of the type is."""
    if media_type == "application/pdf":
        return MediaKind.DOCUMENT
    family = media_type.partition("/")[0]
    return MediaKind(family) if family in {"image", "audio", "video"} else MediaKind.UNKNOWN
