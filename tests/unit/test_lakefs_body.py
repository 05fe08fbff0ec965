"""A file on its way to the store: whole ranges may have to be sent again."""

import hashlib
from pathlib import Path

import pytest

from shared.cancellation import CancelToken
from shared.errors import DigestMismatchError
from shared.lakefs.body import Body

CONTENT = b"0123456789"


def body(tmp_path: Path, sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> Body:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return Body(file, len(CONTENT), sha256, CancelToken(), lambda _: None)


def test_a_range_that_was_sent_whole_and_refused_is_sent_again(tmp_path: Path) -> None:
    sent = body(tmp_path)
    for start, length in ((0, 4), (0, 4), (4, 4), (4, 4), (8, 2), (8, 2)):
        assert b"".join(sent.chunks(start, length)) == CONTENT[start : start + length]
        assert sent.counted == start + length


def test_the_last_range_of_a_file_that_changed_is_held_back(tmp_path: Path) -> None:
    sent = body(tmp_path, sha256="0" * 64)
    assert b"".join(sent.chunks(0, 8)) == CONTENT[:8]
    for _ in range(2):
        with pytest.raises(DigestMismatchError):
            list(sent.chunks(8, 2))
