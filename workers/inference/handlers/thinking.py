"""What a model thinks before it answers, told from the answer by the tokens around it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self

import torch

_BEGIN, _END = "<think>", "</think>"


@dataclass(frozen=True)
class Thoughts:
    """The tokens around a model's thoughts, and what the prompt says of them."""

    tokenizer: Any
    begin: int
    end: int
    #: The prompt ends with the token that begins a thought.
    opened: bool
    #: The prompt ends with a thought, as templates have it where the model is not to think.
    closed: bool

    @classmethod
    def of(cls, tokenizer: Any, prompt: torch.Tensor | None) -> Self | None:
        """Read the end of a prompt; None for a model to which the tags are mere text."""
        added = tokenizer.get_added_vocab()
        if not {_BEGIN, _END} <= added.keys():
            return None
        begin, end = added[_BEGIN], added[_END]
        ids = [] if prompt is None else prompt[0].tolist()
        last = next((x for x in reversed(ids) if not _is_blank(tokenizer, x)), None)
        return cls(tokenizer, begin, end, opened=last == begin, closed=last == end)

    def split(self, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the tokens of the thought and those of the answer."""
        splitter = Splitter(self)
        answer = splitter.take(ids)
        return splitter.thought, answer or splitter.held


class _Place(Enum):
    BEFORE = auto()
    THOUGHT = auto()
    AFTER = auto()
    ANSWER = auto()


@dataclass
class Splitter:
    """Takes tokens as they come; blank ones before the answer are held, or dropped if it thought.

    A thought is what the prompt opens or what the tokens begin with; a tag further on is text.
    """

    thoughts: Thoughts
    thought: list[int] = field(default_factory=list)
    #: Blank tokens of which it is not known yet what follows them.
    held: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._place = _Place.THOUGHT if self.thoughts.opened else _Place.BEFORE

    def take(self, ids: Iterable[int]) -> list[int]:
        """Return the tokens that are the answer's."""
        return [x for token in ids for x in self._answered(token)]

    def _answered(self, token: int) -> Iterator[int]:
        if self._place is _Place.ANSWER:
            yield token
        elif self._place is _Place.THOUGHT:
            if token == self.thoughts.end:
                self._place = _Place.AFTER
            elif token != self.thoughts.begin:
                self.thought.append(token)
        elif self._place is _Place.BEFORE and token == self.thoughts.begin:
            self._place = _Place.THOUGHT
            self.held.clear()
        elif not _is_blank(self.thoughts.tokenizer, token):
            self._place = _Place.ANSWER
            yield from (*self.held, token)
            self.held.clear()
        elif self._place is _Place.BEFORE:
            self.held.append(token)


def _is_blank(tokenizer: Any, token: int) -> bool:
    return str(tokenizer.decode([token])).isspace()
