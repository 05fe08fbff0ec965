"""What Whisper writes, while it writes it."""

from typing import Any

import structlog
import torch
from transformers.generation.streamers import BaseStreamer

from workers.inference.calls import Emit
from workers.inference.handlers.streaming import TextStream, decode

log = structlog.get_logger()


class WhisperStream(BaseStreamer):
    """Hands out what is said as it is written down; the pieces together are the final text.

    Where Whisper tells the time, two times in a row end a segment and begin the next. If a window
    has such a pair, ``generate`` drops what comes after the last one and hears it again in the next
    window. So text is handed out token by token up to a window's first pair, and after that by the
    segment. A time that ends the whole window ends a segment too.
    """

    def __init__(self, tokenizer: Any, emit: Emit) -> None:
        self._tokenizer = tokenizer
        self._emit = emit
        self._first_time = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
        self._special = frozenset(tokenizer.all_special_ids)
        self._handed_out = ""
        self._prompt_comes = True
        self._begin_window()

    def put(self, value: torch.Tensor) -> None:
        """Take each window's prompt, which comes first, then its tokens."""
        if self._prompt_comes:
            self._prompt_comes = False
            return
        for token in value.flatten().tolist():
            if token >= self._first_time:
                self._take_time()
            elif token not in self._special:
                self._take_text(token)

    def end(self) -> None:
        """Take the end of a window."""
        if not self._pairs:
            self._text.end()
        elif self._after_time:
            self._hand_out_segment()
        self._prompt_comes = True
        self._begin_window()

    def finish(self, text: str) -> None:
        """Hand out what is left of the final text."""
        if text.startswith(self._handed_out):
            self._hand_out(text[len(self._handed_out) :])
        else:
            log.warning("stream_differs_from_text", characters=len(self._handed_out))

    def _begin_window(self) -> None:
        self._pairs = 0
        self._after_time = False
        self._segment: list[int] = []
        self._text = self._new_text()

    def _take_time(self) -> None:
        if self._after_time:
            self._hand_out_segment()
            self._pairs += 1
        elif not self._pairs:
            self._text.end()
            self._text = self._new_text()
        self._after_time = True

    def _take_text(self, token: int) -> None:
        self._after_time = False
        if self._pairs:
            self._segment.append(token)
        else:
            self._text.put(torch.tensor([token]))

    def _hand_out_segment(self) -> None:
        self._hand_out(decode(self._tokenizer, self._segment))
        self._segment = []

    def _new_text(self) -> TextStream:
        stream = TextStream(self._tokenizer, (), self._hand_out)
        stream.put(torch.tensor([]))  # in place of a prompt
        return stream

    def _hand_out(self, piece: str) -> None:
        if piece:
            self._handed_out += piece
            self._emit(piece)
