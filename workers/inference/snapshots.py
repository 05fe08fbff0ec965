"""Model directories fetched from lakeFS by commit, shared by the processes of a host.

A snapshot appears by one rename when all of its files are there, verified and on the disk, so a
directory that exists is complete. Who uses one holds a shared lock; who fetches or removes one
holds it exclusively. What a killed fetch left is taken over, file by file, by the next one.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from shared.cancellation import CancelToken
from shared.directories import sync
from shared.errors import DigestMismatchError, InsufficientDiskError, NotFoundError
from shared.file_lock import FileLock
from shared.models import LakeFSLocation, manifest_digest
from workers.inference.calls import Report, ignore_progress
from workers.inference.snapshot_disk import SnapshotDisk, SnapshotPlace
from workers.inference.snapshot_fetch import SnapshotFetch, SnapshotStore

log = structlog.get_logger()


@dataclass(frozen=True)
class Snapshot:
    """A complete model directory that nobody removes before ``close``."""

    directory: Path
    _place: SnapshotPlace
    _lock: FileLock

    def close(self) -> None:
        """Let it be removed; it was last used now."""
        self._place.touch()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Snapshots:
    """Hands out snapshots, fetching those that are not there."""

    def __init__(
        self, store: SnapshotStore, disk: SnapshotDisk, *, concurrent_files: int = 4
    ) -> None:
        self._store = store
        self._disk = disk
        self._concurrent_files = concurrent_files

    def acquire(
        self, location: LakeFSLocation, token: CancelToken, report: Report = ignore_progress
    ) -> Snapshot:
        """Return the location's snapshot, held until it is closed."""
        place = self._disk.place(location)
        lock = FileLock(place.lock)
        try:
            lock.acquire(token, exclusive=False)
            while not place.directory.is_dir():
                # Between two locks another process may fetch or remove it, so each looks again.
                lock.release()
                lock.acquire(token, exclusive=True)
                if not place.directory.is_dir():
                    self._fetch(location, place, token, report)
                lock.release()
                lock.acquire(token, exclusive=False)
            place.touch()
        except BaseException:
            lock.close()
            raise
        return Snapshot(place.directory, place, lock)

    def _fetch(
        self, location: LakeFSLocation, place: SnapshotPlace, token: CancelToken, report: Report
    ) -> None:
        """Fetch all files beside the snapshot's place, then put them there at once."""
        files = self._store.files(location.repo, location.commit, location.path)
        if not files:
            raise NotFoundError(f"{location.uri} holds no files")
        if location.manifest not in {"", manifest_digest(files)}:
            raise DigestMismatchError(
                f"{location.uri} does not hold the files that were registered",
                code="manifest_mismatch",
            )
        self._disk.make_room(place, sum(file.size_bytes for file in files))
        fetch = SnapshotFetch(self._store, location, token, report)
        try:
            complete = fetch.run(files, place.partial, self._concurrent_files)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self._disk.discard(place.partial)
            raise InsufficientDiskError(f"the disk filled up fetching {location.uri}") from None
        place.directory.parent.mkdir(parents=True, exist_ok=True)
        complete.rename(place.directory)
        sync(place.directory.parent)
        self._disk.discard(place.partial)
        log.info("snapshot_fetched", uri=location.uri, files=len(files))
