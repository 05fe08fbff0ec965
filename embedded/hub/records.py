"""What the hub remembers of a model: its revisions, and each commit's files and folders."""

from pydantic import BaseModel, ConfigDict

from embedded.hub.errors import EntryNotFoundError

DEFAULT_BRANCH = "main"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Record):
    """One file of a commit."""

    path: str
    size_bytes: int
    #: Names the content in the blob store.
    sha256: str
    #: Git's id of what git would hold: the file, or the LFS pointer to it.
    blob_id: str
    #: Length of the LFS pointer; None for a file that git holds itself.
    pointer_size: int | None = None

    @property
    def is_lfs(self) -> bool:
        """Whether the file is large: git holds a pointer, and the CDN the content."""
        return self.pointer_size is not None

    @property
    def etag(self) -> str:
        """The digest that the protocol names the content by."""
        return self.sha256 if self.is_lfs else self.blob_id


class FolderEntry(_Record):
    """One folder of a commit, by git's tree id."""

    path: str
    tree_id: str


class Commit(_Record):
    """An immutable revision."""

    sha: str
    created_at: str
    #: Both sorted by path.
    files: tuple[FileEntry, ...]
    folders: tuple[FolderEntry, ...]
    #: `model_type` and `architectures` of the model's config.json.
    config: dict[str, str | list[str]] = {}

    def file(self, path: str) -> FileEntry:
        """Return the file at `path`."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise EntryNotFoundError(self.sha)

    @property
    def size_bytes(self) -> int:
        """Size of all the files."""
        return sum(entry.size_bytes for entry in self.files)


class Repo(_Record):
    """A model: who may fetch it, and where its branches and tags point."""

    model_id: str
    created_at: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = {}
    tags: dict[str, str] = {}
    #: State of the directory under the root at the last start; None for what was published.
    fingerprint: str | None = None
