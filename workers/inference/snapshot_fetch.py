"""One model's files on their way from the store: in parallel, verified, and safe on the disk."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from hashlib import file_digest
from pathlib import Path
from typing import Protocol

from shared.cancellation import CancelToken
from shared.directories import sync
from shared.errors import CancelledError, DigestMismatchError
from shared.file_names import check_file_names
from shared.models import LakeFSLocation, StoredFile
from workers.inference.calls import Report


class SnapshotStore(Protocol):
    """What snapshots need of the versioned store."""

    def files(self, repo: str, ref: str, path: str) -> list[StoredFile]:
        """Return the files below ``path``; raise ``NotFoundError`` if there is no such place."""

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
        """Stream one object to a local file and return its sha256 in hexadecimal.

        A file that is there holds the object's first bytes, and is completed.
        """


class SnapshotFetch:
    """Fetches several files at once into a directory; the first failure stops them all.

    Files that an earlier fetch left there are kept if their digest is right; one that it left
    unfinished is completed.
    """

    def __init__(
        self, store: SnapshotStore, location: LakeFSLocation, token: CancelToken, report: Report
    ) -> None:
        self._store = store
        self._location = location
        self._token = token
        self._report = report
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._total_bytes = 0
        self._failed = threading.Event()

    def run(self, files: list[StoredFile], partial: Path, concurrent_files: int) -> Path:
        """Fetch every file and return the directory that holds exactly them."""
        check_file_names((file.path for file in files), repr(self._location.uri))
        self._total_bytes = sum(file.size_bytes for file in files)
        incoming, complete = partial / "incoming", partial / "complete"
        incoming.mkdir(parents=True, exist_ok=True)
        _remove_others(complete, {complete / file.path for file in files})
        with ThreadPoolExecutor(concurrent_files, thread_name_prefix="snapshot") as pool:
            futures = [
                pool.submit(self._get, file, incoming / str(number), complete / file.path)
                for number, file in enumerate(files)
            ]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                self._failed.set()
                pool.shutdown(cancel_futures=True)
            for future in done:
                future.result()
        for directory, _, _ in os.walk(complete):
            sync(Path(directory))
        return complete

    def _get(self, file: StoredFile, incoming: Path, target: Path) -> None:
        """Have one file in place; it is fetched a second time if its bytes are wrong."""
        if target.is_file() and file.sha256 and file.sha256 == _sha256(target):
            self._count(file.size_bytes, file)
            return
        if not self._receive(file, incoming) and not self._receive(file, incoming):
            raise DigestMismatchError(
                f"{file.path} of {self._location.uri} does not have the bytes that were stored"
            )
        sync(incoming)
        target.parent.mkdir(parents=True, exist_ok=True)
        incoming.rename(target)

    def _receive(self, file: StoredFile, incoming: Path) -> bool:
        """Fetch one file and return whether it is what was stored."""
        received_bytes = 0
        if incoming.exists() and incoming.stat().st_size > file.size_bytes:
            incoming.unlink()

        def on_bytes(count: int) -> None:
            nonlocal received_bytes
            received_bytes += count
            self._count(count, file)

        location = self._location
        path = f"{location.path}/{file.path}" if location.path else file.path
        digest = self._store.fetch(
            location.repo, location.commit, path, incoming, token=self._token, on_bytes=on_bytes
        )
        right = incoming.stat().st_size == file.size_bytes and file.sha256 in {None, digest}
        if not right:
            incoming.unlink()  # else the next fetch would go on from its bytes
            self._count(-received_bytes, file)
        return right

    def _count(self, count: int, file: StoredFile) -> None:
        """Report bytes, and stop if the work is to stop or another file has failed."""
        self._token.check()
        if self._failed.is_set():
            raise CancelledError("another file of the model failed")
        with self._lock:
            self._done_bytes += count
            self._report(self._done_bytes, self._total_bytes, "bytes", file.path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _remove_others(directory: Path, wanted: set[Path]) -> None:
    """Remove files that are not part of the model."""
    directory.mkdir(exist_ok=True)
    for parent, _, names in os.walk(directory):
        for name in names:
            if (file := Path(parent, name)) not in wanted:
                file.unlink()
