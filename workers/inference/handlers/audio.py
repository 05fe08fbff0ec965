"""What all tasks share whose input is a sound."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from shared.errors import InvalidInputError
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.base import BaseModelHandler
from workers.inference.media import DecodedAudio, MediaLoader

FIELD = "data.audio"
#: One frame of what models look at; of anything shorter they can say nothing.
_SHORTEST_SECONDS = 0.025


class AudioHandler(BaseModelHandler[TransformersModel]):
    """Takes ``audio``, by reference, and hands it to the model at the rate that it was made for."""

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``audio``: an uploaded file's id, a ``data:`` URI, a URL or a path."""
        if unknown := sorted(data.keys() - {"audio"}):
            raise InvalidInputError(
                f"the task takes 'audio' and not {unknown[0]!r}", field=f"data.{unknown[0]}"
            )
        MediaLoader(self.settings.media).check(data.get("audio"), FIELD)

    def hear(self, extractor: Any, call: InferenceCall) -> DecodedAudio:
        """Return the sound as the model's feature extractor takes it."""
        rate = int(extractor.sampling_rate)
        media = MediaLoader(self.settings.media)
        sound = media.audio(call.data["audio"], FIELD, rate, call.token)
        if len(sound.waveform) < rate * _SHORTEST_SECONDS:
            raise InvalidInputError(
                f"the sound lasts {len(sound.waveform) / rate:.3f} s, which is too short "
                "to hear anything",
                field=FIELD,
            )
        return sound


class _OwnType(TorchFunctionMode):
    """Makes this thread's windows of float32, whatever torch's default.

    The default belongs to the process, and ``from_pretrained`` changes it while another model
    loads; Whisper's feature extractor names no type.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call what is called."""
        own = {"dtype": torch.float32} if func is torch.hann_window else {}
        return func(*args, **own | (kwargs or {}))


def features_of(extractor: Any, waveform: Any, **options: Any) -> dict[str, torch.Tensor]:
    """Return what the model takes for a waveform."""
    rate = extractor.sampling_rate
    with _OwnType():
        return dict(extractor(waveform, sampling_rate=rate, return_tensors="pt", **options))


def sound_metadata(sound: DecodedAudio) -> dict[str, Any]:
    """Return what the result says of the sound: as it came, and as the model heard it."""
    return {
        "audio": sound.metadata,
        "duration_seconds": sound.metadata["duration_seconds"],
        "sampling_rate": sound.sampling_rate,
    }
