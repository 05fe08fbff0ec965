"""The repositories of lakeFS, for the front: without the SDK, which costs it a second and 20 MB."""

from datetime import UTC, datetime
from typing import Any

from shared.lakefs.connection import connect
from shared.lakefs.errors import check, translated
from shared.lakefs.types import Repository
from shared.settings import LakeFSSettings

PAGE = 1000


class RepositoryListing:
    """Asks lakeFS which repositories there are."""

    def __init__(self, settings: LakeFSSettings) -> None:
        self._http = connect(settings)

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def repositories(self) -> list[Repository]:
        """Return all repositories."""
        found: list[Repository] = []
        after, more = "", True
        while more:
            with translated():
                response = self._http.get("/repositories", params={"after": after, "amount": PAGE})
            check(response)
            page = response.json()
            found += [_repository(entry) for entry in page["results"]]
            after, more = page["pagination"]["next_offset"], page["pagination"]["has_more"]
        return found

    def ping(self) -> None:
        """Raise ``UnavailableError`` if lakeFS does not answer, or not to these credentials."""
        with translated():
            check(self._http.get("/repositories", params={"amount": 1}))


def _repository(entry: dict[str, Any]) -> Repository:
    return Repository(
        name=entry["id"],
        default_branch=entry["default_branch"],
        created_at=datetime.fromtimestamp(entry["creation_date"], UTC),
        storage_namespace=entry["storage_namespace"],
    )
