"""What lakeFS answers, as the platform sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.models import StoredFile, manifest_digest


@dataclass(frozen=True)
class Repository:
    """A repository of the store."""

    name: str
    default_branch: str
    created_at: datetime
    #: Where its objects lie, as the store addresses it.
    storage_namespace: str
    read_only: bool = False


@dataclass(frozen=True)
class Commit:
    """A commit of a repository."""

    #: All 64 digits.
    id: str
    message: str
    #: To the second, by the clock of lakeFS.
    created_at: datetime
    metadata: dict[str, str] = field(default_factory=dict)
    parents: tuple[str, ...] = ()

    def holds(self, path: str, files: Sequence[StoredFile]) -> bool:
        """Return whether ``files`` are what the upload that made this commit put under ``path``.

        True where the commit does not say: it was made by another client, or for another path.
        """
        if self.metadata.get("path") != path:
            return True
        if manifest := self.metadata.get("manifest"):
            return manifest == manifest_digest(files)
        return self.metadata.get("files", str(len(files))) == str(len(files))
