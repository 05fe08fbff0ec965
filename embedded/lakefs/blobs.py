"""Content-addressed files: written under a temporary name, renamed when complete."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from embedded.lakefs.errors import GoneError


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are safely on disk."""

    #: sha256 in hex; the name of the file.
    digest: str
    #: md5 in hex, which is what lakeFS calls the checksum.
    md5: str
    size_bytes: int


class BlobWriter:
    """A file in the making; `steps` may run in parallel, one block at a time."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        #: What has to be done with every block, in any order.
        self.steps: tuple[Callable[[bytes], object], ...] = (
            self._file.write,
            self._sha256.update,
            self._md5.update,
        )

    def blob(self) -> Blob:
        """Describe what was written so far."""
        return Blob(self._sha256.hexdigest(), self._md5.hexdigest(), self._file.tell())

    def move_to(self, place: Path) -> None:
        """Bring the bytes to disk, then let them appear at `place` at once."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.rename(place)
        _sync_folder(place.parent)


class BlobStore:
    """A folder of blobs, one of unfinished files and one of parts of multipart uploads."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._unfinished = root / "unfinished"
        self._parts = root / "parts"
        shutil.rmtree(self._unfinished, ignore_errors=True)  # what a crash left
        for folder in (self._blobs, self._unfinished, self._parts):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return the file of a blob."""
        path = self._blobs / digest
        if not path.is_file():
            raise GoneError("No data")
        return path

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Open a file that is gone afterwards unless it was kept."""
        path = self._unfinished / uuid.uuid4().hex
        try:
            with path.open("wb") as file:
                yield BlobWriter(path, file)
        finally:
            path.unlink(missing_ok=True)

    def keep(self, writer: BlobWriter) -> Blob:
        """Give a finished file its place among the blobs."""
        blob = writer.blob()
        place = self._blobs / blob.digest
        if not place.exists():
            writer.move_to(place)
        return blob

    def keep_part(self, writer: BlobWriter, upload_id: str, number: int) -> str:
        """Keep a finished file as part `number` of an upload and return its ETag."""
        folder = self._parts / upload_id
        folder.mkdir(exist_ok=True)
        etag = writer.blob().md5
        writer.move_to(folder / f"{number}-{etag}")
        return etag

    def parts(self, upload_id: str) -> dict[tuple[int, str], Path]:
        """Return the files of the parts that have arrived, by number and ETag."""
        found = {}
        for file in (self._parts / upload_id).glob("*"):
            number, _, etag = file.name.partition("-")
            found[int(number), etag] = file
        return found

    def drop_parts(self, upload_id: str) -> None:
        """Forget the parts of an upload."""
        shutil.rmtree(self._parts / upload_id, ignore_errors=True)

    def sweep(self, used: Collection[str], parts_after: float) -> None:
        """Delete blobs that nothing names, and parts older than a unix time in seconds."""
        for blob in self._blobs.iterdir():
            if blob.name not in used:
                blob.unlink()
        for folder in self._parts.iterdir():
            if folder.stat().st_mtime < parts_after:
                shutil.rmtree(folder)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
