"""What decoders read from."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from shared.media.errors import corrupt
from shared.media.types import HEAD_BYTES, media_type_of

#: A file's path, its bytes, or the file itself, opened for reading and seekable.
Source = Path | bytes | BinaryIO


@contextmanager
def opened(source: Source, field: str) -> Iterator[tuple[BinaryIO, str]]:
    """Yield the source as a file at its start, and its media type; close what was opened here."""
    if isinstance(source, bytes):
        yield _identified(BytesIO(source), field)
    elif isinstance(source, Path):
        with source.open("rb") as file:
            yield _identified(file, field)
    else:
        yield _identified(source, field)


def _identified(file: BinaryIO, field: str) -> tuple[BinaryIO, str]:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise corrupt("the medium is empty", field)
    return file, media_type_of(head)
