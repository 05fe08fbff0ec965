"""Sound."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from shared.cancellation import CancelToken
from shared.media.errors import corrupt, too_large, unsupported
from shared.media.types import MediaKind, kind_of
from shared.settings import MediaSettings
from workers.inference.media.containers import CONTAINER_TYPES
from workers.inference.media.sound_tracks import SoundTrack, embedded_track, sound_file
from workers.inference.media.sources import Source, opened

#: Sampling rates that sound has, in samples a second.
_RATES = range(1000, 768_001)


@dataclass(frozen=True)
class DecodedAudio:
    """Sound as models take it."""

    #: Mono, in [-1, 1].
    waveform: NDArray[np.float32]
    #: Samples in a second: what was asked for.
    sampling_rate: int
    #: ``media_type``, ``duration_seconds``, and the source's ``sampling_rate`` and ``channels``:
    #: for the result.
    metadata: dict[str, Any]


def decode_audio(
    source: Source,
    sampling_rate: int,
    *,
    limits: MediaSettings,
    field: str = "data.audio",
    token: CancelToken | None = None,
) -> DecodedAudio:
    """Decode sound, or the sound of a video, mixed to mono and resampled.

    Gives the samples that ``transformers.audio_utils.load_audio`` gives, but in bounded memory:
    beside the result, a piece of the source.
    """
    with opened(source, field) as (file, media_type):
        if kind_of(media_type) not in {MediaKind.AUDIO, MediaKind.VIDEO}:
            raise unsupported(
                f"{media_type} is no audio: WAV, MP3, FLAC, Ogg, M4A, MP4 and WebM are", field
            )
        reader = embedded_track if media_type in CONTAINER_TYPES else sound_file
        with reader(file, media_type, field) as track:
            _check_header(track, limits.max_audio_seconds, field)
            waveform, seconds = _decoded(track, sampling_rate, limits, field, token)
    return DecodedAudio(
        waveform=waveform,
        sampling_rate=sampling_rate,
        metadata={
            "media_type": media_type,
            "duration_seconds": round(seconds, 3),
            "sampling_rate": track.sampling_rate,
            "channels": track.channels,
        },
    )


def _check_header(track: SoundTrack, max_seconds: float, field: str) -> None:
    if track.sampling_rate not in _RATES:
        raise unsupported(f"sound of {track.sampling_rate} samples a second is not read", field)
    if track.declared_seconds is not None and track.declared_seconds > max_seconds:
        raise too_large(
            f"the sound lasts {track.declared_seconds:.0f} s; at most {max_seconds:.0f} s are read",
            field,
        )


def _decoded(
    track: SoundTrack,
    sampling_rate: int,
    limits: MediaSettings,
    field: str,
    token: CancelToken | None,
) -> tuple[NDArray[np.float32], float]:
    """Return the resampled track and its own length in seconds."""
    samples = 0
    limit = int(limits.max_audio_seconds * track.sampling_rate)

    def counted() -> Iterator[NDArray[np.float32]]:
        nonlocal samples
        for piece in track.pieces:
            if token is not None:
                token.check()
            samples += len(piece)
            if samples > limit:
                raise too_large(
                    f"the sound lasts longer than the {limits.max_audio_seconds:.0f} s "
                    "that are read",
                    field,
                )
            yield piece

    pieces = list(_resampled(counted(), track.sampling_rate, sampling_rate))
    seconds = samples / track.sampling_rate
    if not samples:
        raise corrupt("the sound has no samples", field)
    if track.declared_seconds and seconds < track.declared_seconds - track.tolerance_seconds:
        raise corrupt(
            f"the sound is truncated: it ends after {seconds:.2f} s "
            f"of {track.declared_seconds:.2f} s",
            field,
        )
    length = math.ceil(samples * sampling_rate / track.sampling_rate)
    return _of_length(np.concatenate(pieces), length), seconds


def _resampled(
    pieces: Iterator[NDArray[np.float32]], rate: int, wanted: int
) -> Iterator[NDArray[np.float32]]:
    if rate == wanted:
        yield from pieces
        return
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="soxr_hq")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _of_length(waveform: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut or pad the few samples by which resamplers and lengths in seconds disagree."""
    return np.pad(waveform, (0, max(0, length - len(waveform))))[:length]
