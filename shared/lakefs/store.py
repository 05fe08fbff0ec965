"""The versioned store as the platform uses it."""

import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import httpx

from shared.cancellation import CancelToken
from shared.errors import NotFoundError
from shared.interruptible import interruptible
from shared.lakefs.connection import CONNECT_SECONDS, connect
from shared.lakefs.control import PAGE, Control
from shared.lakefs.errors import from_status, malformed
from shared.lakefs.listing import pages
from shared.lakefs.reader import Reader
from shared.lakefs.references import References
from shared.lakefs.writer import Writer
from shared.models import StoredFile
from shared.settings import LakeFSSettings


class LakeFSStore(References):
    """Repositories, branches, commits and objects; safe to use from several threads."""

    def __init__(self, settings: LakeFSSettings) -> None:
        super().__init__(Control(settings), settings.storage_namespace)
        self._http = connect(settings)
        # Presigned links go to another server, which must not see our credentials.
        self._links = httpx.Client(
            timeout=httpx.Timeout(settings.timeout_seconds, connect=CONNECT_SECONDS)
        )
        self._reader = Reader(self._http, self._control)
        self._writer = Writer(self._http, self._links, self._control)

    def close(self) -> None:
        """Give the connections back."""
        self._control.close()
        self._http.close()
        self._links.close()

    def health(self) -> float:
        """Return the seconds that an answer takes, to the platform's own credentials."""
        started = time.monotonic()
        self._control.call(self._control.repositories.list_repositories, amount=1)
        return time.monotonic() - started

    def files(
        self, repo: str, ref: str, path: str, *, missing_ok: bool = False
    ) -> list[StoredFile]:
        """Return the files under a directory; of a branch, those not committed too."""
        prefix = f"{path}/" if path else ""
        listing = f"/repositories/{repo}/refs/{ref}/objects/ls"
        # Not by the SDK, which takes four times as long to read a listing of many files.
        options = {"prefix": prefix, "presign": "false"}
        with self._named(repo, ref):
            found = [
                StoredFile(
                    path=str(entry["path"]).removeprefix(prefix),
                    size_bytes=int(entry.get("size_bytes") or 0),
                    sha256=(entry.get("metadata") or {}).get("sha256"),
                    checksum=str(entry["checksum"]),
                )
                for entry in pages(self._http, self._control.answers, listing, options)
            ]
        if not found and not missing_ok:
            empty = NotFoundError(f"{repo}/{ref} is empty")
            raise self._missing_directory(repo, ref, path) or empty
        return found

    def protecting_rule(self, repo: str, branch: str) -> str | None:
        """Return the branch protection rule that forbids writes to a branch, if any does.

        None too where the platform's credentials may not read the rules.
        """
        path = f"/repositories/{repo}/settings/branch_protection"
        with self._control.answers.translated():
            response = interruptible(lambda: self._http.get(path))
        if response.is_client_error or response.status_code == 501:
            return None
        self._control.answers.check(response)
        try:
            patterns = [str(rule["pattern"]) for rule in response.json()]
        except (ValueError, KeyError, TypeError) as error:
            raise malformed() from error
        return next((pattern for pattern in patterns if fnmatchcase(branch, pattern)), None)

    def fetch(
        self,
        repo: str,
        ref: str,
        path: str,
        destination: Path,
        *,
        token: CancelToken,
        on_bytes: Callable[[int], None],
    ) -> str:
        """Write one object to a file and return its sha256, which is the caller's to compare.

        ``on_bytes`` gets the size of each chunk.
        """
        with self._named(repo, ref, path):
            return self._reader.fetch(repo, ref, path, destination, token=token, on_bytes=on_bytes)

    def read(self, repo: str, ref: str, path: str, start: int, length: int) -> bytes:
        """Return a few bytes of an object, fewer at its end."""
        with self._named(repo, ref, path):
            return self._reader.read(repo, ref, path, start, length)

    def put(
        self,
        repo: str,
        branch: str,
        path: str,
        source: Path,
        *,
        sha256: str,
        token: CancelToken,
        on_bytes: Callable[[int], None],
    ) -> None:
        """Upload a file whose digest is known, and verified on the way.

        ``on_bytes`` gets the size of each chunk, and negative sizes for what is to be sent again.
        """
        with self._named(repo, branch):
            self._writer.put(
                repo, branch, path, source, sha256=sha256, token=token, on_bytes=on_bytes
            )

    def delete_files(self, repo: str, branch: str, paths: Sequence[str]) -> None:
        """Delete objects of a branch; those that are not there do not matter."""
        api = self._control.objects
        for start in range(0, len(paths), PAGE):
            batch = {"paths": list(paths[start : start + PAGE])}
            with self._named(repo, branch):
                answer = self._control.call(api.delete_objects, repo, branch, batch)
            for failed in answer.errors:
                raise from_status(int(failed.status_code), str(failed.message))
