"""Questions about a video, on models that see videos or several images at once."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from shared.errors import InvalidInputError
from shared.tasks import Options, VideoOptions
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.generation import Prompt
from workers.inference.handlers.image_text import ImageTextHandler, video_prompt

PROMPT = "Describe what happens in this video."
#: Frames looked at where the request does not say.
NUM_FRAMES = 8


class VideoAnalysisHandler(ImageTextHandler):
    """Puts frames, taken evenly from the whole video, before the prompt."""

    options_model: ClassVar[type[Options]] = VideoOptions

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take ``video``, a medium; a ``prompt`` takes the place of ours."""
        self.check_data(data, "video", prompt=False)

    def encode(self, model: TransformersModel, call: InferenceCall) -> Prompt:
        """Decode the frames; encode them with the prompt."""
        frames = self._num_frames(call.options)
        decoded = self.media.video(call.data["video"], "data.video", frames, call.token)
        text = call.data.get("prompt")
        prompt = video_prompt(
            model,
            decoded,
            text or PROMPT,
            field="data.prompt" if text else "data.video",
            metadata={"video": decoded.metadata},
        )
        return replace(prompt, source="options.num_frames")

    def _num_frames(self, options: Options) -> int:
        assert isinstance(options, VideoOptions)  # noqa: S101 - parsed by options_model
        most = self.settings.media.max_video_frames
        wanted = min(NUM_FRAMES, most) if options.num_frames is None else options.num_frames
        if wanted > most:
            raise InvalidInputError(
                f"at most {most} frames of a video are looked at", field="options.num_frames"
            )
        return wanted
