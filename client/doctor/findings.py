"""What an examination finds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    #: Works, but not as well as it could; or not needed by everybody.
    WARNING = "warning"
    #: Needed, and not there.
    DOWN = "down"
    #: Cannot be seen from here.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One part, and how it is."""

    part: str
    level: Level
    detail: str
    #: What to do about it.
    mend: str = ""

    def document(self) -> dict[str, Any]:
        """Return the finding for programs."""
        return asdict(self)


#: Looks at one thing, or at several of a kind.
Check = Callable[[], list[Finding]]
