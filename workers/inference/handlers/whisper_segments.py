"""When each segment was said that Whisper wrote down."""

from collections.abc import Iterable, Mapping
from typing import Any

from workers.inference.handlers.streaming import decode


def segment_chunks(
    tokenizer: Any, segments: Iterable[Mapping[str, Any]], precision: float
) -> list[dict[str, Any]]:
    """Return the text of ``generate``'s segments and, in seconds of the whole sound, its times.

    ``precision`` is the seconds between two times that the model can tell. The end is None where
    the model told none.
    """
    first_time = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    chunks = []
    for segment in segments:
        tokens = segment["tokens"].tolist()
        text = decode(tokenizer, [token for token in tokens if token < first_time])
        if text:
            told = [token - first_time for token in tokens if token >= first_time]
            chunks.append({"text": text, "timestamp": _times(segment, told, precision)})
    return chunks


def _times(segment: Mapping[str, Any], told: list[int], precision: float) -> list[float | None]:
    """Return start and end.

    The ``start`` of a segment that fills its window is the window's; what the model told is later.
    """
    if len(told) > 1:
        end = float(segment["end"])
        return [round(end - (told[1] - told[0]) * precision, 2), round(end, 2)]
    return [round(float(segment["start"]) + sum(told) * precision, 2), None]
