"""Sound as it lies in a file, read in pieces: by libsndfile, and out of MP4 and WebM by FFmpeg."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_CUR
from typing import BinaryIO

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from shared.media.errors import corrupt, unsupported
from workers.inference.media.containers import container

#: Values (samples of all channels) in one piece.
_PIECE_VALUES = 256 * 1024
#: Sizes that a WAV header has while its end is unknown, as of a recording that was piped.
_OPEN_ENDED = {0, 0xFFFFFFFF}
#: libsndfile's word for a length that the header does not say.
_ENDLESS_FRAMES = 2**62


@dataclass(frozen=True)
class SoundTrack:
    """Sound that can be read once."""

    #: Samples in a second.
    sampling_rate: int
    channels: int
    #: Of the whole track, as its header says; None where it does not.
    declared_seconds: float | None
    #: How much shorter than declared a whole track may turn out to be.
    tolerance_seconds: float
    #: Pieces of the track, mixed to mono.
    pieces: Iterator[NDArray[np.float32]]


@contextmanager
def sound_file(file: BinaryIO, media_type: str, field: str) -> Iterator[SoundTrack]:
    """Yield the track of a WAV, FLAC, Ogg or MP3 file."""
    declared = _declared_by_wav(file) if media_type == "audio/wav" else None
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            if declared is None and sound.frames < _ENDLESS_FRAMES:
                declared = sound.frames / sound.samplerate
            yield SoundTrack(
                sampling_rate=sound.samplerate,
                channels=sound.channels,
                declared_seconds=declared,
                tolerance_seconds=0.01,
                pieces=_pieces_of_file(sound),
            )
    except soundfile.SoundFileError as error:
        raise corrupt(f"the sound is truncated or broken: {_reason(error)}", field) from None


def _reason(error: soundfile.SoundFileError) -> str:
    return getattr(error, "error_string", "") or "it cannot be read"


def _pieces_of_file(sound: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    frames = max(1, _PIECE_VALUES // sound.channels)
    while len(piece := sound.read(frames, dtype="float32", always_2d=True)):
        yield piece.mean(axis=1) if sound.channels > 1 else piece[:, 0]


def _declared_by_wav(file: BinaryIO) -> float | None:
    """Return how long a WAV file says that it is: libsndfile believes the file's size instead."""
    file.seek(0)
    if file.read(4) != b"RIFF":  # RF64 has its sizes elsewhere, and is no format of small files
        return None
    file.seek(12)
    bytes_per_second = 0
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            return size / bytes_per_second if bytes_per_second and size not in _OPEN_ENDED else None
        if name == b"fmt " and size >= 16:
            bytes_per_second = struct.unpack("<I", file.read(16)[8:12].rjust(4, b"\0"))[0]
            size -= 16
        file.seek(size + size % 2, SEEK_CUR)
    return None


@contextmanager
def embedded_track(file: BinaryIO, media_type: str, field: str) -> Iterator[SoundTrack]:
    """Yield the first sound track of an MP4 or WebM file, which may be a video."""
    with container(file, media_type, field) as found:
        if not found.streams.audio:
            raise unsupported("the medium has no sound", field)
        stream = found.streams.audio[0]
        seconds: float | None = None
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif found.duration:
            seconds = found.duration / av.time_base
        if not stream.sample_rate or not stream.channels:
            raise corrupt("the header of the sound is incomplete", field)
        yield SoundTrack(
            sampling_rate=stream.sample_rate,
            channels=stream.channels,
            declared_seconds=seconds,
            # Encoders round up to whole packets, and put a little silence before the sound.
            tolerance_seconds=0.25,
            pieces=_pieces_of_stream(found, stream),
        )


def _pieces_of_stream(
    found: av.container.InputContainer, stream: AudioStream
) -> Iterator[NDArray[np.float32]]:
    # Planes of floats, whatever the codec gives; rate and channels stay.
    planar = av.AudioResampler(format="fltp", rate=stream.sample_rate)
    for frame in found.decode(stream):
        for converted in planar.resample(frame):
            yield converted.to_ndarray().mean(axis=0, dtype=np.float32)
