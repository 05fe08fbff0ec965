"""Uploaded files, in storage that API and workers share.

``<root>/<file_id>/content``    the bytes
``<root>/<file_id>/file.json``  its record, written last: without it the file does not exist

A file's id holds the time of its upload, so that names alone tell which files are too old.
"""

import errno
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import uuid_utils
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import InsufficientDiskError, UnavailableError
from shared.media.errors import corrupt, not_found, too_large
from shared.media.references import FILE_ID
from shared.media.types import HEAD_BYTES, media_type_of
from shared.settings import MediaSettings

_PREFIX = "file-"
_COPY_BYTES = 1024 * 1024


class StoredFile(BaseModel):
    """An uploaded file."""

    model_config = ConfigDict(frozen=True)

    file_id: str
    size_bytes: int
    sha256: str
    #: As its first bytes tell; ``application/octet-stream`` where they tell nothing.
    media_type: str


class _Record(StoredFile):
    """A file as its storage keeps it."""

    #: The id of the API key that uploaded it; empty where no keys are in use.
    submitter: str = ""


class FileStore:
    """Keeps files for a while; safe to use from several threads, processes and hosts."""

    def __init__(self, settings: MediaSettings) -> None:
        self._kept_seconds = settings.files_kept_seconds
        self._max_bytes = settings.max_bytes
        # Other processes change what is listed; fsspec does not say what its functions return.
        found = fsspec.url_to_fs(settings.files_url, use_listings_cache=False)
        self._fs: Any = found[0]
        self._root: str = found[1]

    @contextmanager
    def uploading(self, field: str, submitter: str = "") -> Iterator["FileUpload"]:
        """Yield a new file to write to; it stays only if ``finish`` was called."""
        file_id = f"{_PREFIX}{uuid_utils.uuid7().hex}"
        with _storage_errors():
            self._fs.makedirs(self._directory(file_id), exist_ok=True)
            upload = FileUpload(
                self._fs, file_id, self._directory(file_id), self._max_bytes, field, submitter
            )
        try:
            yield upload
        finally:
            if not upload.finished:
                upload.close()
                self._remove(file_id)

    def get(self, file_id: str, field: str = "file_id", submitter: str | None = None) -> StoredFile:
        """Return what is known of a file; if a submitter is given, of one of theirs."""
        if not FILE_ID.fullmatch(file_id) or self._is_old(file_id):
            raise not_found(f"there is no file {file_id[:80]!r}", field)
        try:
            with _storage_errors():
                content = self._fs.cat_file(f"{self._directory(file_id)}/file.json")
            record = _Record.model_validate_json(content)
        except (FileNotFoundError, ValidationError):
            raise not_found(f"there is no file {file_id!r}", field) from None
        if submitter not in {None, record.submitter}:
            raise not_found(f"there is no file {file_id!r}", field)
        return StoredFile(**record.model_dump(exclude={"submitter"}))

    def open(self, file_id: str, field: str = "file_id") -> BinaryIO:
        """Open a file for reading; what lies on another host is copied to this one first."""
        path = f"{self._directory(self.get(file_id, field).file_id)}/content"
        try:
            with _storage_errors():
                if isinstance(self._fs, LocalFileSystem):
                    return Path(path).open("rb")
                return self._copied(path)
        except FileNotFoundError:
            raise not_found(f"there is no file {file_id!r}", field) from None

    def _copied(self, path: str) -> BinaryIO:
        """Copy a file to one without a name, which no crash can leave behind."""
        copy = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
        try:
            with self._fs.open(path, "rb") as stored:
                shutil.copyfileobj(stored, copy, _COPY_BYTES)
        except BaseException:
            copy.close()
            raise
        copy.seek(0)
        return copy

    def delete(self, file_id: str, submitter: str | None = None) -> StoredFile:
        """Delete a file, of the submitter if one is given, and return what was known of it."""
        record = self.get(file_id, submitter=submitter)
        self._remove(record.file_id)
        return record

    def sweep(self) -> int:
        """Delete the files that have been kept for their time; return how many there were."""
        with suppress(FileNotFoundError), _storage_errors():
            names = [Path(path).name for path in self._fs.ls(self._root, detail=False)]
            old = [name for name in names if FILE_ID.fullmatch(name) and self._is_old(name)]
            for name in old:
                self._remove(name)
            return len(old)
        return 0

    def _directory(self, file_id: str) -> str:
        return f"{self._root}/{file_id}"

    def _is_old(self, file_id: str) -> bool:
        # The first 48 bits of a UUID of version 7 are the milliseconds since 1970 (RFC 9562).
        uploaded_at = int(file_id.removeprefix(_PREFIX)[:12], 16) / 1000
        return time.time() - uploaded_at > self._kept_seconds

    def _remove(self, file_id: str) -> None:
        # Another process may have swept it meanwhile.
        with suppress(FileNotFoundError), _storage_errors():
            self._fs.rm(self._directory(file_id), recursive=True)


class FileUpload:
    """A file on its way in."""

    def __init__(
        self, fs: Any, file_id: str, directory: str, max_bytes: int, field: str, submitter: str
    ) -> None:
        self.finished = False
        self._fs = fs
        self._directory = directory
        self._file_id = file_id
        self._submitter = submitter
        self._max_bytes = max_bytes
        self._field = field
        self._digest = hashlib.sha256()
        self._head = b""
        self._size_bytes = 0
        self._content = fs.open(f"{directory}/content", "wb")

    def write(self, chunk: bytes) -> None:
        """Add bytes to the file."""
        self._size_bytes += len(chunk)
        if self._size_bytes > self._max_bytes:
            raise too_large(f"the file has more than {self._max_bytes} bytes", self._field)
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[:HEAD_BYTES]
        self._digest.update(chunk)
        with _storage_errors():
            self._content.write(chunk)

    def finish(self) -> StoredFile:
        """Make the file exist."""
        if not self._size_bytes:
            raise corrupt("the file is empty", self._field)
        stored = StoredFile(
            file_id=self._file_id,
            size_bytes=self._size_bytes,
            sha256=self._digest.hexdigest(),
            media_type=media_type_of(self._head),
        )
        record = _Record(**stored.model_dump(), submitter=self._submitter)
        with _storage_errors():
            self._content.close()
            self._fs.pipe_file(f"{self._directory}/file.json", record.model_dump_json().encode())
        self.finished = True
        return stored

    def close(self) -> None:
        """Write no more."""
        with suppress(OSError):
            self._content.close()


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Tell a full disk from a storage that is away; what is missing, the caller names."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise InsufficientDiskError("the storage of files is full") from error
        raise UnavailableError(
            "the storage of files cannot be used now",
            code="files_unavailable",
            service="file store",
        ) from error
