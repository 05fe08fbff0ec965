"""Streamed pieces are final: what later tokens may change is held back."""

# ruff: noqa: ARG002 - the tokenizers have no special tokens to skip

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.inference.handlers.streaming import TextStream, cut


class ByteTokenizer:
    """Every token is a byte, so that characters of several bytes come in parts."""

    clean_up_tokenization_spaces = False

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Decode as byte-level tokenizers do."""
        return bytes(ids).decode(errors="replace")

    def convert_ids_to_tokens(self, token: int) -> str:
        """Spell a token."""
        return chr(token)


class FallbackTokenizer(ByteTokenizer):
    """Spells what is not ASCII in bytes, and decodes a run of those as a whole or not at all."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Decode as tokenizers with byte fallback do."""
        text, run = "", b""
        for token in [*ids, 0]:
            if token > 127:
                run += bytes([token])
                continue
            try:
                text += run.decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(run)
            text, run = text + chr(token), b""
        return text[:-1]

    def convert_ids_to_tokens(self, token: int) -> str:
        """Spell a token."""
        return f"<0x{token:02X}>" if token > 127 else chr(token)


class SilentTokenizer(FallbackTokenizer):
    """Says nothing for one token, and reads bytes on both sides of it as one run."""

    all_special_ids = (1,)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Skip the special token, then decode."""
        spoken = [token for token in ids if token not in self.all_special_ids]
        return super().decode(spoken, skip_special_tokens=skip_special_tokens)


class TidyTokenizer(ByteTokenizer):
    """Removes the space before punctuation."""

    clean_up_tokenization_spaces = True

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Decode, then tidy up."""
        text = super().decode(ids, skip_special_tokens=skip_special_tokens)
        for spaced in (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're"):
            text = text.replace(spaced, spaced[1:])
        return text


def stream(tokenizer: ByteTokenizer, content: bytes, stops: Sequence[str] = ()) -> list[str]:
    """Return the pieces of a text, of which one byte comes at a time."""
    pieces: list[str] = []
    streamer = TextStream(tokenizer, stops, pieces.append)
    streamer.put(torch.tensor([[1, 2, 3]]))
    for byte in content:
        streamer.put(torch.tensor([byte]))
    streamer.end()
    streamer.finish(cut(tokenizer.decode(list(content), skip_special_tokens=True), stops))
    return pieces


def test_characters_come_whole() -> None:
    assert stream(ByteTokenizer(), "aß日🙂".encode()) == ["a", "ß", "日", "🙂"]


def test_what_may_become_a_stop_string_is_held_back() -> None:
    assert stream(ByteTokenizer(), b"ab</x></s>cd", ["</s>"]) == ["a", "b", "</x", ">"]


def test_no_piece_is_empty_and_the_prompt_is_none() -> None:
    assert stream(ByteTokenizer(), b"") == []


class CountingTokenizer(ByteTokenizer):
    """Remembers how much it was asked to decode at once."""

    def __init__(self) -> None:
        self.most = 0

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Count, then decode."""
        self.most = max(self.most, len(ids))
        return super().decode(ids, skip_special_tokens=skip_special_tokens)


def test_a_long_text_is_decoded_in_windows() -> None:
    tokenizer = CountingTokenizer()
    content = "a long text with ß and 🙂 in it, and no end. ".encode() * 40
    pieces: list[str] = []
    streamer = TextStream(tokenizer, ["never"], pieces.append)
    streamer.put(torch.tensor([[1, 2, 3]]))
    for byte in content:
        streamer.put(torch.tensor([byte]))
    streamer.end()
    assert "".join(pieces) == content.decode()
    assert tokenizer.most < 60


def test_a_stream_begins_with_its_lead_even_without_a_text() -> None:
    pieces: list[str] = []
    streamer = TextStream(ByteTokenizer(), (), pieces.append, lead="\n")
    streamer.put(torch.tensor([[1, 2, 3]]))
    streamer.end()
    streamer.finish("")
    TextStream(ByteTokenizer(), (), pieces.append, lead="\n").finish("beams")
    assert pieces == ["\n", "\n", "beams"]


_CHARACTERS = st.text("ab .,n't🙂ß日\ufffd\x01")
_CONTENTS = st.one_of(
    _CHARACTERS.map(str.encode),
    st.binary(),
    st.lists(st.one_of(_CHARACTERS.map(str.encode), st.binary(max_size=4)), min_size=20).map(
        b"".join
    ),
)


@pytest.mark.parametrize(
    "tokenizer", [ByteTokenizer(), FallbackTokenizer(), SilentTokenizer(), TidyTokenizer()]
)
@given(
    content=_CONTENTS,
    stops=st.lists(st.text("ab .ß", min_size=1, max_size=3), max_size=2),
)
def test_the_pieces_are_the_text(
    tokenizer: ByteTokenizer, content: bytes, stops: list[str]
) -> None:
    expected = cut(tokenizer.decode(list(content), skip_special_tokens=True), stops)
    assert "".join(stream(tokenizer, content, stops)) == expected
