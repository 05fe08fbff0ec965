"""What is known of a model in the staging area."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST = ".lifecycle.json"


class ManifestFile(BaseModel):
    """One file as it was when the model was finished."""

    model_config = ConfigDict(frozen=True)

    path: str
    size_bytes: int
    sha256: str
    #: Tells whether the file was touched since.
    mtime_ns: int

    @classmethod
    def of(cls, directory: Path, path: str, sha256: str) -> Self:
        """Describe a verified file of a directory."""
        stat = (directory / path).stat()
        return cls(path=path, size_bytes=stat.st_size, sha256=sha256, mtime_ns=stat.st_mtime_ns)


class Manifest(BaseModel):
    """Where a finished model came from, and its files."""

    model_config = ConfigDict(frozen=True)

    source: str
    repo_id: str
    #: The commit at the source.
    revision: str
    finished_at: datetime
    files: tuple[ManifestFile, ...]


@dataclass(frozen=True)
class StagedFile:
    """One file of a model in the staging area."""

    #: Relative to the model, with slashes.
    path: str
    size_bytes: int
    #: Hexadecimal; None for a file that did not come by a download or was touched since.
    sha256: str | None
    mtime_ns: int


@dataclass(frozen=True)
class StagedModel:
    """A finished model; ``source``, ``repo_id`` and ``revision`` only if it was downloaded."""

    name: str
    path: Path
    modified_at: datetime
    files: tuple[StagedFile, ...]
    source: str | None = None
    repo_id: str | None = None
    revision: str | None = None

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def staged_id(self) -> str:
        """Identify source, commit and selection of files: 16 hexadecimal digits.

        Two downloads of one model have the same id only if they staged the same files.
        """
        files = sorted((file.path, file.size_bytes, file.sha256) for file in self.files)
        identity = json.dumps([self.source, self.repo_id, self.revision, files])
        return hashlib.sha256(identity.encode()).hexdigest()[:16]


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of a directory; None if it has none that can be read."""
    try:
        return Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValidationError):
        return None
