"""The versioned store: lakeFS' control plane through its SDK, bytes by streaming HTTP.

The SDK costs about a second and 20 MB to import; it builds a thousand pydantic models.
"""

from shared.lakefs.store import LakeFSStore
from shared.lakefs.types import Commit, Repository

__all__ = ["Commit", "LakeFSStore", "Repository"]
