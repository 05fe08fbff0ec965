"""Questions about videos are answered token for token as transformers answers them."""

from typing import Any

import pytest

from tests.integration.vision.stack import (
    VisionStack,
    asked,
    chat,
    generate,
    uri,
    video,
)
from workers.inference.handlers.video_analysis import PROMPT as VIDEO_PROMPT
from workers.inference.media import DecodedVideo, decode_video

IMAGE_TEXT = "AutoModelForImageTextToText"
PROMPT = "what is it?"


def _frames(stack: VisionStack, seed: int, count: int) -> DecodedVideo:
    return decode_video(video(seed), count, limits=stack.settings.media)


def _metadata(clip: DecodedVideo) -> dict[str, Any]:
    return {
        "total_num_frames": 30,
        "fps": clip.fps,
        "duration": clip.metadata["duration_seconds"],
        "frames_indices": list(clip.indices),
        "width": 64,
        "height": 48,
    }


@pytest.mark.parametrize("options", [{}, {"num_frames": 4}, {"num_frames": 5, "num_beams": 2}])
@pytest.mark.parametrize("name", ["llava-next-video", "smolvlm", "qwen2-vl", "llava"])
def test_video_analysis_answers_as_generate_does(
    stack: VisionStack, generated: list[list[int]], name: str, options: dict[str, Any]
) -> None:
    result = stack.ask("video-analysis", name, {"video": uri(video(1), "video/mp4")}, **options)

    given = dict(options)
    clip = _frames(stack, 1, given.pop("num_frames", 8))
    model, processor = stack.direct(name, IMAGE_TEXT)
    if name == "llava":
        frames = [{"type": "image", "image": image} for image in clip.images]
        encoded = chat(processor, frames, VIDEO_PROMPT)
    else:
        encoded = chat(
            processor,
            [{"type": "video", "video": clip.frames}],
            VIDEO_PROMPT,
            do_sample_frames=False,
            video_metadata=[_metadata(clip)],
        )
    assert asked(generated, result, processor) == generate(model, encoded, **given)
    assert result["metadata"]["video"]["sampled_frames"] == options.get("num_frames", 8)


@pytest.mark.parametrize("name", ["llava-next-video", "smolvlm", "qwen2-vl", "llava"])
def test_video_analysis_depends_on_video_frames_and_prompt(stack: VisionStack, name: str) -> None:
    questions: list[tuple[int, str, dict[str, Any]]] = [
        (1, PROMPT, {}),
        (2, PROMPT, {}),
        (1, "where?", {}),
        (1, PROMPT, {"num_frames": 3}),
    ]
    answers = {
        stack.ask(
            "video-analysis",
            name,
            {"video": uri(video(seed), "video/mp4"), "prompt": prompt},
            **options,
        )["generated_text"]
        for seed, prompt, options in questions
    }
    assert len(answers) == len(questions)
