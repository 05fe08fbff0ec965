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
from workers.inference.handlers.thinking import Splitter, Thoughts

log = structlog.get_logger()

#: A byte as tokenizers with byte fallback spell it; a run of them is decoded as a whole.
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
#: Tokens looked at beyond the length of a stop string, for special tokens that decode to nothing.
_MARGIN_TOKENS = 8
#: A stream's window moves on when it has so many tokens, and then keeps so many of them.
_WINDOW_TOKENS, _KEPT_TOKENS = 48, 16
#: Characters before a text that decide what it reads like; a removed space looks at four.
_CONTEXT_CHARACTERS = 8


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

    Stop strings are looked for in the answer, not in what a model thinks before it. transformers
    has stop strings too, but works through the whole vocabulary for each new set.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt_tokens: int,
        stops: Sequence[str],
        token: CancelToken,
        thoughts: Thoughts | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt_tokens = prompt_tokens
        self._stops = stops
        self._token = token
        self._thoughts = thoughts
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
            if self._thoughts is not None:
                start = self._prompt_tokens
            for row, ids in enumerate(input_ids[:, start:].tolist()):
                answer = self._thoughts.split(ids)[1] if self._thoughts else ids
                text = decode(self._tokenizer, answer[-self._window_tokens :])
                ended[row] = any(stop in text for stop in self._stops)
        return ended


class TextStream(BaseStreamer):
    """Hands out a text while its tokens come; the pieces together are the final text.

    Only a window of the last tokens is decoded, so a long answer costs no more for each token than
    a short one. Held back is what later tokens may still change: a character of several bytes that
    is not complete, what may become a stop string, and, where the tokenizer removes spaces before
    punctuation, the few characters that this can touch.
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: Sequence[str],
        emit: Emit,
        *,
        lead: str = "",
        thoughts: Thoughts | None = None,
    ) -> None:
        """Hand out ``lead`` first: what stands between this text and the one before it."""
        self._tokenizer = tokenizer
        self._stops = stops
        self._emit = emit
        self._lead = lead
        self._splitter = Splitter(thoughts) if thoughts else None
        self._prompt_came = False
        self._pieces: list[str] = []
        #: Tokens whose text may still be needed; of that text, how much is handed out.
        self._window: list[int] = []
        self._handed_out = 0
        self._window_limit = _WINDOW_TOKENS
        #: Tokens that decoding skips: bytes on both sides of one are one run.
        self._silent = _special_ids(tokenizer)
        self._cleaned_up = 3 if getattr(tokenizer, "clean_up_tokenization_spaces", False) else 0

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, which comes first, then the tokens."""
        if not self._prompt_came:
            self._prompt_came = True
            self._hand_out_lead()
            return
        ids = value.flatten().tolist()
        if self._splitter is not None:
            ids = self._splitter.take(ids)
        self._window.extend(x for x in ids if x not in self._silent)
        if not self._window or self._spells_a_byte(self._window[-1]):
            return
        text = decode(self._tokenizer, self._window)
        settled = self._settled(text[self._handed_out :])
        self._handed_out += len(settled)
        self._hand_out(settled)
        if len(self._window) > self._window_limit:
            self._move_window(text)

    def end(self) -> None:
        """Hand out what was held back: no token comes any more."""
        text = decode(self._tokenizer, self._window)
        self._hand_out(cut(text[self._handed_out :], self._stops))
        self._window, self._handed_out = [], 0

    def finish(self, text: str) -> None:
        """Hand out what is left of the final text: all of it, if its tokens never came."""
        self._hand_out_lead()
        handed_out = "".join(self._pieces)
        if text.startswith(handed_out):
            self._hand_out(text[len(handed_out) :])
        else:
            log.warning("stream_differs_from_text", characters=len(handed_out))

    def _settled(self, text: str) -> str:
        """Return as much of the text as no later token can change."""
        before_stop = cut(text, self._stops)
        if before_stop != text:
            return before_stop
        text = text[: len(text) - self._cleaned_up].rstrip("\ufffd")
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        return text[: len(text) - held]

    def _move_window(self, text: str) -> None:
        """Forget tokens whose text is handed out, if what is left reads the same without them.

        A tokenizer may decode the first of several tokens otherwise than one in their midst, so
        some context stays before what is to be handed out; without it the window grows.
        """
        kept = self._window[-_KEPT_TOKENS:]
        self._window_limit = 2 * len(self._window)
        if self._spells_a_byte(kept[0]):
            return
        text_kept = decode(self._tokenizer, kept)
        held_back = len(text) - self._handed_out
        needed = held_back + _CONTEXT_CHARACTERS
        if len(text_kept) >= needed and text[-needed:] == text_kept[-needed:]:
            self._window = kept
            self._handed_out = len(text_kept) - held_back
            self._window_limit = _WINDOW_TOKENS

    def _spells_a_byte(self, token: int) -> bool:
        return bool(_BYTE_TOKEN.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token))))

    def _hand_out(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self._emit(piece)

    def _hand_out_lead(self) -> None:
        if self._lead:
            self._emit(self._lead)
            self._lead = ""


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the tokens that decoding skips, as the tokenizer itself knows them."""
    if getattr(tokenizer, "is_fast", False):
        added = tokenizer.added_tokens_decoder.items()
        return frozenset(number for number, token in added if token.special)
    return frozenset(getattr(tokenizer, "all_special_ids", ()))


def _overlap(text: str, stop: str) -> int:
    """Return how much of the text's end may be the beginning of the stop string."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
