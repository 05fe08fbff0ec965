"""Frames of a video."""

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from shared.cancellation import CancelToken
from shared.media.errors import corrupt, too_large, unsupported
from shared.media.types import MediaKind, kind_of
from shared.settings import MediaSettings
from workers.inference.media.containers import container
from workers.inference.media.sources import Source, opened
from workers.inference.media.timeline import Timeline, frames_at, read_timeline

#: Memory for the frames of one video.
_MAX_FRAMES_BYTES = 512 * 1024 * 1024
#: How much sooner than its header says a whole video may end.
_TOLERANCE_SECONDS = 1.0
_DECODER_THREADS = 4


@dataclass(frozen=True)
class DecodedVideo:
    """Frames taken evenly from a whole video."""

    #: (frames, height, width, 3), RGB, upright.
    frames: NDArray[np.uint8]
    #: Which frames of the video these are, counted from 0; ascending.
    indices: tuple[int, ...]
    #: When each is shown.
    timestamps_seconds: tuple[float, ...]
    #: Frames in a second, on average; and all frames of the video.
    fps: float
    total_frames: int
    #: ``media_type``, ``duration_seconds``, ``fps``, ``total_frames``, ``sampled_frames`` (count),
    #: ``width`` and ``height``: for the result.
    metadata: dict[str, Any]

    @property
    def images(self) -> list[Image.Image]:
        """The frames as PIL images."""
        return [Image.fromarray(frame) for frame in self.frames]


def decode_video(
    source: Source,
    frames: int,
    *,
    limits: MediaSettings,
    field: str = "data.video",
    token: CancelToken | None = None,
) -> DecodedVideo:
    """Decode so many frames, first and last among them; all if the video has no more.

    Never more than ``limits.max_video_frames``.
    """
    with opened(source, field) as (file, media_type):
        if kind_of(media_type) is not MediaKind.VIDEO:
            raise unsupported(f"{media_type} is no video: MP4, QuickTime and WebM are", field)
        with container(file, media_type, field) as found:
            stream = _checked_stream(found, limits, field)
            timeline = read_timeline(found, stream, limits.max_video_seconds, field, token)
            _check_whole(timeline, stream, limits.max_video_seconds, field)
            indices = evenly(len(timeline.times), min(frames, limits.max_video_frames))
            pictures = _decoded(found, stream, timeline, indices, field, token)
    return _described(pictures, indices, timeline, media_type)


def evenly(total: int, wanted: int) -> tuple[int, ...]:
    """Return indices from the first to the last of ``total``, evenly apart; all if no more."""
    if wanted >= total:
        return tuple(range(total))
    return tuple(round(index) for index in np.linspace(0, total - 1, wanted).tolist())


def _checked_stream(found: InputContainer, limits: MediaSettings, field: str) -> VideoStream:
    """Return the video's stream, if its header says that it may be decoded."""
    streams = [stream for stream in found.streams.video if not _is_cover(stream)]
    if not streams:
        raise unsupported("the medium has no video, only sound", field)
    stream = streams[0]
    width, height, limit = stream.width, stream.height, limits.max_video_pixels
    if not width or not height:
        raise corrupt("the header of the video is incomplete", field)
    if width * height > limit:
        raise too_large(
            f"the video has frames of {width} x {height} pixels; at most {limit} are read", field
        )
    seconds = _declared_seconds(stream)
    if seconds is not None and seconds > limits.max_video_seconds:
        raise too_large(
            f"the video lasts {seconds:.0f} s; at most {limits.max_video_seconds:.0f} s are read",
            field,
        )
    # Frames inside may be larger than the header says.
    stream.codec_context.options = {"max_pixels": str(limit)}
    stream.codec_context.thread_count = _DECODER_THREADS
    stream.thread_type = "AUTO"
    return stream


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _declared_seconds(stream: VideoStream) -> float | None:
    """Return how long the file that the video is in says that it is."""
    duration = stream.container.duration if isinstance(stream.container, InputContainer) else None
    return duration / av.time_base if duration else None


def _check_whole(timeline: Timeline, stream: VideoStream, max_seconds: float, field: str) -> None:
    """Refuse a video that ends before its header says, and one whose header says too little."""
    if timeline.seconds > max_seconds:
        raise too_large(f"the video lasts longer than the {max_seconds:.0f} s that are read", field)
    declared = stream.frames
    seconds = _declared_seconds(stream)
    if (missing := declared - timeline.packets) > 0:
        raise corrupt(f"the video is truncated: {missing} of {declared} frames are missing", field)
    if seconds is not None and timeline.seconds < seconds - _TOLERANCE_SECONDS:
        raise corrupt(
            f"the video is truncated: it ends after {timeline.seconds:.1f} s of {seconds:.1f} s",
            field,
        )


def _decoded(
    found: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    indices: tuple[int, ...],
    field: str,
    token: CancelToken | None,
) -> NDArray[np.uint8]:
    size_bytes = len(indices) * stream.width * stream.height * 3
    if size_bytes > _MAX_FRAMES_BYTES:
        raise too_large(
            f"{len(indices)} frames of {stream.width} x {stream.height} pixels take more memory "
            "than there is for a video: ask for fewer",
            field,
        )
    pictures: list[NDArray[np.uint8]] = []
    for frame in frames_at(found, stream, timeline, indices, token):
        picture = frame.to_ndarray(format="rgb24")
        # Counterclockwise, as numpy turns.
        pictures.append(np.rot90(picture, k=round(frame.rotation / 90) % 4))
    if len(pictures) < len(indices):
        raise corrupt(f"frame {indices[len(pictures)]} of the video cannot be decoded", field)
    if len({picture.shape for picture in pictures}) > 1:
        raise unsupported("the video changes the size of its frames", field)
    return np.stack(pictures)


def _described(
    pictures: NDArray[np.uint8], indices: tuple[int, ...], timeline: Timeline, media_type: str
) -> DecodedVideo:
    total = len(timeline.times)
    fps = total / timeline.seconds if timeline.seconds else 0.0
    return DecodedVideo(
        frames=pictures,
        indices=indices,
        timestamps_seconds=tuple(round(timeline.at(index), 6) for index in indices),
        fps=fps,
        total_frames=total,
        metadata={
            "media_type": media_type,
            "duration_seconds": round(timeline.seconds, 3),
            "fps": round(fps, 3),
            "total_frames": total,
            "sampled_frames": len(indices),
            "width": pictures.shape[2],
            "height": pictures.shape[1],
        },
    )
