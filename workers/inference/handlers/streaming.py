"""Text as it is generated: decoded, cut at stop strings, and handed out in final pieces."""

import re
from collections.abc import Sequence
from typing import Any

import structlog
import torch
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from shared.cancellation import CancelToken
from workers.inference.calls import Emit

log = structlog.get_logger()

#: A byte as tokenizers with byte fallback spell it; a run of them is decoded as a whole.
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
#: Tokens looked at beyond the length of a stop string, for special tokens that decode to nothing.
_MARGIN_TOKENS = 8


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of generated tokens."""
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def cut(text: str, stops: Sequence[str]) -> str:
    """Return the text before the stop string that is the first to be complete.

    More text does not change which one that is, so a streamed text is cut in the same place.
    """
    found = [(i + len(stop), i) for stop in stops if (i := text.find(stop)) >= 0]
    return text[: min(found)[1]] if found else text


class Stopper(StoppingCriteria):
    """Asked after each token: raises if the job must stop, ends a sequence that has a stop string.

    transformers has stop strings too, but works through the whole vocabulary for each new set.
    """

    def __init__(
        self, tokenizer: Any, prompt_tokens: int, stops: Sequence[str], token: CancelToken
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt_tokens = prompt_tokens
        self._stops = stops
        self._token = token
        longest = max((len(stop.encode()) for stop in stops), default=0)
        self._window_tokens = longest + _MARGIN_TOKENS

    def __call__(
        self,
        input_ids: torch.Tensor,
        scores: Any,  # noqa: ARG002 - transformers' signature
        **_: Any,
    ) -> torch.Tensor:
        """Say for each sequence whether it has ended."""
        self._token.check()
        ended = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        if self._stops:
            start = max(self._prompt_tokens, input_ids.shape[1] - self._window_tokens)
            for row, ids in enumerate(input_ids[:, start:].tolist()):
                text = decode(self._tokenizer, ids)
                ended[row] = any(stop in text for stop in self._stops)
        return ended


class TextStream(BaseStreamer):
    """Hands out a text while its tokens come; the pieces together are the final text.

    Held back is what later tokens may still change: a character of several bytes that is not
    complete, what may become a stop string, and, where the tokenizer removes spaces before
    punctuation, the few characters that this can touch.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], emit: Emit) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._emit = emit
        self._prompt_came = False
        self._ids: list[int] = []
        self._handed_out = ""
        self._cleaned_up = 3 if getattr(tokenizer, "clean_up_tokenization_spaces", False) else 0

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, which comes first, then the tokens."""
        if not self._prompt_came:
            self._prompt_came = True
            return
        self._ids.extend(value.flatten().tolist())
        if not _BYTE_TOKEN.fullmatch(str(self._tokenizer.convert_ids_to_tokens(self._ids[-1]))):
            self._hand_out(self._settled(decode(self._tokenizer, self._ids)))

    def end(self) -> None:
        """Do nothing: ``finish`` has the last word."""

    def finish(self, text: str) -> None:
        """Hand out what is left of the final text."""
        self._hand_out(text)
        if self._handed_out != text:
            log.warning("stream_differs_from_text", characters=len(self._handed_out))

    def _settled(self, text: str) -> str:
        """Return as much of the text as no later token can change."""
        before_stop = cut(text, self._stops)
        if before_stop != text:
            return before_stop
        text = text[: len(text) - self._cleaned_up].rstrip("\ufffd")
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        return text[: len(text) - held]

    def _hand_out(self, text: str) -> None:
        if len(text) > len(self._handed_out) and text.startswith(self._handed_out):
            piece = text[len(self._handed_out) :]
            self._handed_out = text
            self._emit(piece)


def _overlap(text: str, stop: str) -> int:
    """Return how much of the text's end may be the beginning of the stop string."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
