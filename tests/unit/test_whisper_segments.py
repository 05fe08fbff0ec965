"""Segments keep their place in the whole sound, whatever times their windows tell."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from workers.inference.handlers.whisper_segments import segment_chunks

WORD, FIRST_TIME = 7, 100
#: As Whisper's window of 30 seconds has it.
PRECISION = 0.02
TOKENIZER = SimpleNamespace(
    convert_tokens_to_ids=lambda _: FIRST_TIME - 1,
    decode=lambda ids, **_: " word" * len(ids),
)


def segment(start: float, end: float, *tokens: float) -> dict[str, Any]:
    """Return a segment as ``generate`` does; a float is a time that the model told."""
    ids = [x if isinstance(x, int) else FIRST_TIME + round(x / PRECISION) for x in tokens]
    return {"start": torch.tensor(start), "end": torch.tensor(end), "tokens": torch.tensor(ids)}


@pytest.mark.parametrize(
    ("heard", "times"),
    [
        pytest.param(segment(30.5, 32.0, 0.5, WORD, 2.0), [30.5, 32.0], id="of-several"),
        pytest.param(segment(30.5, 32.0, 0.5, WORD, 2.0, 2.4), [30.5, 32.0], id="before-another"),
        pytest.param(segment(30.0, 32.0, 0.5, WORD, 2.0), [30.5, 32.0], id="fills-its-window"),
        pytest.param(segment(30.0, 30.5, 0.5, WORD), [30.5, None], id="without-an-end"),
        pytest.param(segment(30.0, 60.0, WORD), [30.0, None], id="without-times"),
    ],
)
def test_times_are_those_of_the_whole_sound(
    heard: dict[str, Any], times: list[float | None]
) -> None:
    (chunk,) = segment_chunks(TOKENIZER, [heard], PRECISION)
    assert chunk == {"text": " word", "timestamp": times}


def test_a_window_without_an_end_leaves_the_next_ones_times_alone() -> None:
    heard = [
        segment(0.0, 0.0, 0.0, WORD),
        segment(30.0, 34.0, 0.0, WORD, 4.0, 4.0),
        segment(34.0, 34.0, 0.0),
        segment(34.0, 40.0, 0.0, WORD, WORD, 6.0),
    ]
    assert segment_chunks(TOKENIZER, heard, PRECISION) == [
        {"text": " word", "timestamp": [0.0, None]},
        {"text": " word", "timestamp": [30.0, 34.0]},
        {"text": " word word", "timestamp": [34.0, 40.0]},
    ]
