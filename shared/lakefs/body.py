"""A local file as the body of uploads: streamed, counted, and held to its digest."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shared.cancellation import CancelToken
from shared.errors import DigestMismatchError

CHUNK_BYTES = 1 << 20


@dataclass
class Body:
    """One attempt to send a file, in one piece or in parts that follow each other."""

    file: Path
    size_bytes: int
    sha256: str
    token: CancelToken
    on_bytes: Callable[[int], None]
    #: Bytes reported so far.
    counted: int = 0
    #: Digests of what comes before the range that was sent last, and before the next one.
    _before: "dict[int, hashlib._Hash]" = field(default_factory=lambda: {0: hashlib.sha256()})

    def chunks(self, start: int, length: int) -> Iterator[bytes]:
        """Yield a range of the file; a range that is asked for again takes its progress back.

        The file's last chunk is held back until the digest of the whole is known to be right, so
        that no store ever has a complete object with other bytes than its metadata tells.
        """
        self.rewind(start)
        digest = self._before[start].copy()
        left = length
        with self.file.open("rb") as source:
            source.seek(start)
            while left:
                self.token.check()
                chunk = source.read(min(CHUNK_BYTES, left))
                digest.update(chunk)
                left -= len(chunk)
                at_end = start + length - left == self.size_bytes
                if not chunk or (at_end and digest.hexdigest() != self.sha256):
                    raise DigestMismatchError(f"{self.file.name} changed since it was verified")
                yield chunk
                self._count(len(chunk))
        # A range that a store takes whole and then refuses is sent again.
        self._before = {start: self._before[start], start + length: digest}

    def rewind(self, start: int) -> None:
        """Take back the progress beyond an offset."""
        if self.counted != start:
            self._count(start - self.counted)

    def _count(self, size_bytes: int) -> None:
        self.counted += size_bytes
        self.on_bytes(size_bytes)
