"""JSON bodies that clients send, with lakeFS's field names."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from embedded.lakefs.changes import Strategy

#: Only what can be sent in a header.
ContentType = Annotated[str, Field(pattern=r"^[ -~]*$")]


class Body(BaseModel):
    """A body in which `null` means the same as leaving the field out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values


class AccessKey(Body):
    """A key pair of the caller's choice."""

    access_key_id: str = Field(min_length=1)
    secret_access_key: str = Field(min_length=1)


class Setup(Body):
    """The first user; its key pair is not left to the server here."""

    username: str = Field(min_length=1)
    key: AccessKey


class RepositoryCreation(Body):
    """A repository to create."""

    name: str
    storage_namespace: str
    storage_id: str = ""
    default_branch: str = "main"
    sample_data: bool = False
    read_only: bool = False


class RepositoryMetadataSet(Body):
    """Repository metadata to add or overwrite."""

    metadata: dict[str, str]


class RepositoryMetadataKeys(Body):
    """Repository metadata to remove."""

    keys: list[str]


class BranchCreation(Body):
    """A branch to create."""

    name: str
    source: str
    force: bool = False
    hidden: bool = False


class TagCreation(Body):
    """A tag to create."""

    id: str
    ref: str
    force: bool = False


class ResetCreation(Body):
    """Staged changes to forget."""

    type: Literal["object", "common_prefix", "reset"]
    path: str = ""
    force: bool = False


class CommitCreation(Body):
    """A commit to make."""

    message: str
    metadata: dict[str, str] = {}
    #: Unix seconds.
    date: int | None = None
    allow_empty: bool = False
    force: bool = False


class CommitOverrides(Body):
    """What to write into a revert or cherry-pick instead of the usual."""

    message: str = ""
    metadata: dict[str, str] = {}


class RevertCreation(Body):
    """A commit to undo."""

    ref: str
    parent_number: int
    commit_overrides: CommitOverrides = CommitOverrides()
    allow_empty: bool = False
    force: bool = False


class CherryPickCreation(Body):
    """A commit to repeat."""

    ref: str
    parent_number: int | None = None
    commit_overrides: CommitOverrides = CommitOverrides()
    force: bool = False


class Merge(Body):
    """How to merge."""

    message: str = ""
    metadata: dict[str, str] = {}
    strategy: Strategy = Strategy.NONE
    allow_empty: bool = False
    squash_merge: bool = False
    force: bool = False


class PathList(Body):
    """Objects to delete."""

    paths: list[str]


class ObjectCopyCreation(Body):
    """An object to copy from."""

    src_path: str
    src_ref: str = ""
    shallow: bool = False
    force: bool = False


class StagingLocation(Body):
    """Where an upload went."""

    physical_address: str


class StagingMetadata(Body):
    """An uploaded object to link to its path."""

    staging: StagingLocation
    checksum: str
    size_bytes: int
    user_metadata: dict[str, str] = {}
    content_type: ContentType = ""
    #: Unix seconds.
    mtime: int | None = None
    force: bool = False


class UploadPart(Body):
    """One part of a multipart upload."""

    part_number: int
    etag: str


class UploadPartFrom(Body):
    """A multipart upload that needs a link for one more part."""

    physical_address: str


class CompletePresignMultipartUpload(Body):
    """The parts that make up an object."""

    physical_address: str
    parts: list[UploadPart]
    user_metadata: dict[str, str] = {}
    content_type: ContentType = ""


class AbortPresignMultipartUpload(Body):
    """A multipart upload to give up."""

    physical_address: str
