"""The things that the server keeps: repositories, refs, commits and entries."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Entry:
    """One object at one path: which bytes, and what is known about them."""

    #: sha256 of the bytes; names the blob.
    digest: str
    #: What clients see, also as ETag: the md5; of an upload in N parts the md5 of md5s and "-N".
    checksum: str
    size_bytes: int
    #: Unix seconds.
    mtime: int
    content_type: str
    metadata: Mapping[str, str]

    @property
    def identity(self) -> tuple[object, ...]:
        """Everything that makes two entries the same; when they were written does not."""
        metadata = sorted(self.metadata.items())
        return (self.digest, self.checksum, self.size_bytes, self.content_type, metadata)

    def to_json(self) -> str:
        """Return the stored form."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the stored form before it is text; `asdict` would copy the metadata deeply."""
        return {
            "digest": self.digest,
            "checksum": self.checksum,
            "size_bytes": self.size_bytes,
            "mtime": self.mtime,
            "content_type": self.content_type,
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the stored form."""
        return cls(**json.loads(text))


def same(left: Entry | None, right: Entry | None) -> bool:
    """Say whether two sides hold the same object, or both hold none."""
    if left is None or right is None:
        return left is right
    return left.identity == right.identity


@dataclass(frozen=True, slots=True)
class Repository:
    """A namespace for branches, tags and commits."""

    id: str
    storage_namespace: str
    default_branch: str
    #: Unix seconds.
    created: int
    read_only: bool
    metadata: Mapping[str, str]

    def physical(self, address: str) -> str:
        """Return an address within the storage namespace in full."""
        return f"{self.storage_namespace.rstrip('/')}/{address}"

    def relative(self, physical: str) -> str:
        """Return the part of a full address that is within the storage namespace."""
        return physical.removeprefix(self.physical(""))


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is staged."""

    repository: str
    branch: str
    path: str


@dataclass(frozen=True, slots=True)
class Ref:
    """A branch or a tag: a name for a commit."""

    id: str
    commit_id: str


@dataclass(frozen=True, slots=True)
class Commit:
    """An immutable version of a repository, named by the sha256 of its content."""

    parents: tuple[str, ...]
    committer: str
    message: str
    #: Unix nanoseconds, so that the log keeps the order within a second.
    created_ns: int
    #: The id of its tree; lakeFS's word is metarange.
    tree_id: str
    #: Length of the longest way to the first commit.
    generation: int
    metadata: Mapping[str, str]
    id: str = ""

    def sealed(self) -> Self:
        """Return the commit with its id."""
        content = json.dumps(asdict(replace(self, id="")), sort_keys=True)
        return replace(self, id=hashlib.sha256(content.encode()).hexdigest())


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object from a column."""
    value: dict[str, Any] = json.loads(text)
    return value
