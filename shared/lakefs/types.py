"""What lakeFS answers, as the platform sees it."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Repository:
    """A repository of the store."""

    name: str
    default_branch: str
    created_at: datetime
    #: Where its objects lie, as the store addresses it.
    storage_namespace: str


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
