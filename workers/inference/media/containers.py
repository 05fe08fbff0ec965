"""MP4 and WebM files, opened by FFmpeg with nothing but the file in its reach."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av
from av.container import InputContainer

from shared.media.errors import corrupt
from workers.inference.media.allocations import MAX_STREAMS, limit_allocations

_DEMUXERS = {
    "audio/mp4": "mp4",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "matroska",
}
#: Types whose files ``container`` opens.
CONTAINER_TYPES = frozenset(_DEMUXERS)


@contextmanager
def container(file: BinaryIO, media_type: str, field: str) -> Iterator[InputContainer]:
    """Yield an opened container; what FFmpeg finds broken in it is an error of the request.

    The demuxer is chosen by the file's first bytes and not by FFmpeg, which knows formats that
    are lists of other files and addresses; no protocol is allowed to any of them.
    """
    limit_allocations()
    try:
        with av.open(
            file,
            mode="r",
            format=_DEMUXERS[media_type],
            options={"protocol_whitelist": "", "max_streams": str(MAX_STREAMS)},
            metadata_errors="replace",
        ) as opened:
            if not opened.streams.video and not opened.streams.audio:
                raise corrupt(f"the {media_type} file has neither pictures nor sound", field)
            yield opened
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise corrupt(f"the {media_type} file is truncated or broken: {reason}", field) from None
