"""How far Whisper is in a long sound, and whether it gets any further."""

from typing import Any

import torch

from shared.errors import InvalidInputError
from workers.inference.calls import InferenceCall
from workers.inference.handlers.audio import FIELD
from workers.inference.media import DecodedAudio

#: Windows that may begin at the same place; sampling can get past it at the next try.
_MOST_TRIES = 5


class WhisperProgress:
    """Is told by ``generate`` where each window begins.

    A model that ends a window's last segment where the window begins makes ``generate`` hear that
    window again, for ever; https://github.com/huggingface/transformers.js/pull/1742 has the like.
    """

    def __init__(self, sound: DecodedAudio, extractor: Any, call: InferenceCall) -> None:
        self._seconds = round(len(sound.waveform) / sound.sampling_rate)
        self._frames_per_second = extractor.sampling_rate / extractor.hop_length
        self._call = call
        self._begin = -1
        self._tries = 0

    def __call__(self, progress: torch.Tensor) -> None:
        """Take the frames that are done, and all of them; raise if the work is to stop."""
        self._call.token.check()
        begin = int(progress[0, 0])
        self._tries = self._tries + 1 if begin == self._begin else 1
        self._begin = begin
        second = int(begin / self._frames_per_second)
        if self._tries > _MOST_TRIES:
            raise InvalidInputError(
                f"the model does not get past second {second} of the sound", field=FIELD
            )
        self._call.on_progress(min(second, self._seconds), self._seconds, "seconds", "")

    def end(self) -> None:
        """Say that all is done."""
        self._call.on_progress(self._seconds, self._seconds, "seconds", "")
