"""What a model is at each place it passes: a file in lakeFS, a version in MLflow."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import InvalidInputError


@dataclass(frozen=True)
class StoredFile:
    """One file of a lakeFS commit or branch."""

    #: Relative to the directory that was listed.
    path: str
    size_bytes: int
    #: Hexadecimal; None where the file was stored by somebody who did not record it.
    sha256: str | None
    #: lakeFS' own checksum, an MD5 or a store's ETag.
    checksum: str


def manifest_digest(files: Iterable[StoredFile]) -> str:
    """Return the sha256 of a directory's list of files: names, sizes and digests.

    It is the same in every commit that holds the same files. lakeFS' checksum stands in where the
    writer of a file recorded no sha256.
    """
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        line = f"{file.sha256 or file.checksum} {file.size_bytes} {file.path!r}\n"
        digest.update(line.encode("unicode_escape"))
    return digest.hexdigest()


@dataclass(frozen=True)
class LakeFSLocation:
    """A model's directory in one lakeFS commit."""

    repo: str
    commit: str
    #: Without slashes around it; empty for the commit's root.
    path: str
    #: ``manifest_digest`` of the files that were registered; empty where none was recorded.
    manifest: str = field(default="", compare=False)

    @property
    def uri(self) -> str:
        """The location as MLflow keeps it: ``lakefs://repo/commit/path``."""
        return f"lakefs://{self.repo}/{self.commit}/{self.path}".rstrip("/")

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read what ``uri`` wrote."""
        scheme, _, rest = uri.partition("://")
        repo, _, tail = rest.partition("/")
        commit, _, path = tail.partition("/")
        if scheme != "lakefs" or not repo or not commit:
            raise InvalidInputError(f"{uri!r} is not a lakefs://repo/commit/path address")
        return cls(repo, commit, path.strip("/"))


#: Why a version's stage changed: by a call, going back, with its registration, or for another one.
ChangeKind = Literal["transition", "rollback", "register", "archive"]


class StageChange(BaseModel):
    """One change of a version's stage."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    at: datetime
    from_stage: str = Field(alias="from")
    to_stage: str = Field(alias="to")
    kind: ChangeKind
    #: The job that did it; empty for a call that was answered at once.
    job_id: str = ""
    #: The API key of whoever asked for it; empty where no keys are in use.
    key_id: str = ""


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: str
    #: ``production``, ``staging``, ``archived`` or ``none``.
    stage: str
    task: str
    engine: str
    #: Where the files are; None for engines that keep their own, such as Ollama.
    location: LakeFSLocation | None
    description: str = ""
    created_at_ms: int = 0
    updated_at_ms: int = 0
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    #: How it came to its stage, the oldest change first.
    history: tuple[StageChange, ...] = ()

    @property
    def has_priority(self) -> bool:
        """Whether its jobs go first, and it is preloaded and evicted last."""
        return self.tags.get("inference_priority") == "1"
