"""When the frames of a video are shown, and from where each can be decoded."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from shared.cancellation import CancelToken
from shared.media.errors import corrupt, too_large

#: More frames a second than any camera of the usual kind takes.
_MAX_FPS = 240


@dataclass(frozen=True)
class Timeline:
    """All frames of a video, known from its packets: nothing was decoded for it."""

    #: Presentation times, ascending, in units of ``time_base`` seconds.
    times: tuple[int, ...]
    #: Those of them at which decoding can start, ascending.
    keys: tuple[int, ...]
    time_base: Fraction
    #: Packets read, those that an edit of the video hides included.
    packets: int

    @property
    def seconds(self) -> float:
        """How long the video lasts, its last frame included."""
        span = self.times[-1] - self.times[0]
        last = span / (len(self.times) - 1) if len(self.times) > 1 else 0
        return float((span + last) * self.time_base)

    def at(self, index: int) -> float:
        """Return when a frame is shown, in seconds after the first."""
        return float((self.times[index] - self.times[0]) * self.time_base)


def read_timeline(
    container: InputContainer,
    stream: VideoStream,
    max_seconds: float,
    field: str,
    token: CancelToken | None,
) -> Timeline:
    """Read all packets of a video, which also shows whether the file is whole."""
    times, keys, packets = set[int](), set[int](), 0
    limit = int(max_seconds * _MAX_FPS)
    for packet in container.demux(stream):
        packets += packet.size > 0
        if packet.size == 0 or packet.is_discard:
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            raise corrupt("the video has frames without a time", field)
        times.add(time)
        if packet.is_keyframe:
            keys.add(time)
        if packets > limit:
            raise too_large(f"the video has more than the {limit} frames that are read", field)
        if token is not None:
            token.check()
    if not times or not keys or stream.time_base is None:
        raise corrupt("the video has no frames", field)
    return Timeline(tuple(sorted(times)), tuple(sorted(keys)), stream.time_base, packets)


def frames_at(
    container: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    indices: tuple[int, ...],
    token: CancelToken | None,
) -> Iterator[VideoFrame]:
    """Decode frames of ascending indices; ends early where one cannot be decoded.

    Jumps to the key frame before a frame wherever that skips some.
    """
    position: int | None = None
    frames: Iterator[VideoFrame] = iter(())
    for wanted in (timeline.times[index] for index in indices):
        key = timeline.keys[max(bisect_right(timeline.keys, wanted) - 1, 0)]
        if position is None or key > position:
            container.seek(key, stream=stream, backward=True)
            frames = iter(container.decode(stream))
        found = _next_at(frames, wanted, token)
        if found is None:
            return
        position = wanted
        yield found


def _next_at(
    frames: Iterator[VideoFrame], wanted: int, token: CancelToken | None
) -> VideoFrame | None:
    for frame in frames:
        if token is not None:
            token.check()
        if frame.pts is not None and frame.pts >= wanted:
            return frame if frame.pts == wanted else None
    return None
