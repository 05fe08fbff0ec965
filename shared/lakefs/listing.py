"""Listings of lakeFS without its SDK, which costs the API server a second and 20 MB."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from shared.interruptible import interruptible
from shared.lakefs.connection import connect
from shared.lakefs.errors import Answers, malformed
from shared.lakefs.types import Repository
from shared.settings import LakeFSSettings

PAGE = 1000


def pages(
    http: httpx.Client, answers: Answers, path: str, options: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield all entries of a listing call of lakeFS."""
    after, more = "", True
    while more:
        params: dict[str, str | int] = {**options, "after": after, "amount": PAGE}
        with answers.translated():
            response = interruptible(partial(http.get, path, params=params))
        _check(response, answers)
        try:
            page = response.json()
            yield from page["results"]
            after, more = page["pagination"]["next_offset"], page["pagination"]["has_more"]
        except (ValueError, KeyError, TypeError) as error:
            raise malformed() from error


class RepositoryListing:
    """Asks lakeFS which repositories and branches there are."""

    def __init__(self, settings: LakeFSSettings) -> None:
        self._http = connect(settings)
        self._answers = Answers(settings)

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def repositories(self) -> list[Repository]:
        """Return all repositories."""
        return [_repository(entry) for entry in self._pages("/repositories", {})]

    def branches(self, repo: str, prefix: str) -> dict[str, str]:
        """Return the commit at the head of each branch whose name begins with a prefix."""
        path = f"/repositories/{quote(repo, safe='')}/branches"
        found = self._pages(path, {"prefix": prefix})
        return {str(entry["id"]): str(entry["commit_id"]) for entry in found}

    def ping(self) -> None:
        """Raise ``UnavailableError`` if lakeFS does not answer, or not to these credentials."""
        with self._answers.translated():
            _check(self._http.get("/repositories", params={"amount": 1}), self._answers)

    def _pages(self, path: str, options: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        return pages(self._http, self._answers, path, options)


def _check(response: httpx.Response, answers: Answers) -> None:
    """Raise unless it is a success, and lakeFS'."""
    media_type = response.headers.get("content-type", "")
    if response.is_success and media_type and "json" not in media_type:
        raise answers.foreign(f"it sends {media_type}")
    answers.check(response)


def _repository(entry: dict[str, Any]) -> Repository:
    return Repository(
        name=entry["id"],
        default_branch=entry["default_branch"],
        created_at=datetime.fromtimestamp(entry["creation_date"], UTC),
        storage_namespace=entry["storage_namespace"],
        read_only=bool(entry.get("read_only")),
    )
