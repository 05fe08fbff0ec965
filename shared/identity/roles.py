"""What the holder of an API key may do; which call takes what is in ``api/access.py``."""

from enum import StrEnum


class Role(StrEnum):
    """What a key may do; each may do what those before it may."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Return whether this role may do what the other may."""
        return _RANK[self] >= _RANK[needed]


_RANK = {role: rank for rank, role in enumerate(Role)}
