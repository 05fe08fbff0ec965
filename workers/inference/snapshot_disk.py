"""The disk that snapshots live on: where each one lies, and what goes to make room for the next."""

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import structlog

from shared.errors import InsufficientDiskError, UnsafeModelError
from shared.file_lock import FileLock
from shared.models import LakeFSLocation

log = structlog.get_logger()

_LOCKS, _PARTIAL, _TRASH = ".locks", ".partial", ".trash"


@dataclass(frozen=True)
class SnapshotPlace:
    """Where one snapshot's files, its unfinished files and its lock are."""

    directory: Path
    partial: Path
    #: Its modification time is the snapshot's last use.
    lock: Path

    def touch(self) -> None:
        """Note a use, on a finer clock than the file system's own."""
        now = time.time_ns()
        os.utime(self.lock, ns=(now, now))


class SnapshotDisk:
    """Finds places below one directory and keeps them within a budget.

    A snapshot is ``<repo>/<commit>/<path>``, the slashes in the path quoted so that none lies in
    another one. Beside them: unfinished ones, locks, and what is being removed.
    """

    def __init__(self, root: Path, *, max_bytes: int = 0, reserve_bytes: int = 0) -> None:
        """Set the budget, 0 for nine tenths of the disk, and what always stays free of the disk."""
        self._root = root.absolute()
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes

    def place(self, location: LakeFSLocation) -> SnapshotPlace:
        """Return where the location's snapshot belongs; refuse one that would lie elsewhere."""
        names = (location.repo, location.commit)
        if any(not name or name.startswith(".") or "/" in name or "\0" in name for name in names):
            raise UnsafeModelError(f"{location.uri} is not a safe location", code="unsafe_path")
        return self._place(Path(*names, _segment(location.path)))

    def make_room(self, place: SnapshotPlace, needed_bytes: int) -> None:
        """Remove what is not in use, the least recently used first, until ``needed_bytes`` fit."""
        self._root.mkdir(parents=True, exist_ok=True)
        for leftover in (self._root / _TRASH).glob("*"):
            shutil.rmtree(leftover, ignore_errors=True)
        missing_bytes = needed_bytes - size_bytes(place.partial)
        for other in self._by_last_use():
            if self._fits(missing_bytes):
                return
            if other != place:
                self._remove_unused(other)
        if not self._fits(missing_bytes):
            raise InsufficientDiskError(
                f"no room for a model of {needed_bytes} bytes: the disk has "
                f"{shutil.disk_usage(self._root).free} bytes free, {self._reserve_bytes} of which "
                f"stay free, models may take {self._budget_bytes()}, and those left are in use"
            )

    def discard(self, directory: Path) -> None:
        """Remove a directory so that, even if killed, it is there as a whole or not at all."""
        trash = self._root / _TRASH / uuid4().hex
        trash.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.rename(trash)
        except FileNotFoundError:
            return
        shutil.rmtree(trash, ignore_errors=True)

    def _place(self, name: Path) -> SnapshotPlace:
        return SnapshotPlace(
            self._root / name, self._root / _PARTIAL / name, self._root / _LOCKS / name
        )

    def _by_last_use(self) -> list[SnapshotPlace]:
        """Return all places that were ever used, the least recently used first."""
        locks = self._root / _LOCKS
        found = sorted(locks.glob("*/*/*"), key=lambda lock: lock.stat().st_mtime_ns)
        return [self._place(lock.relative_to(locks)) for lock in found]

    def _remove_unused(self, place: SnapshotPlace) -> None:
        """Remove a snapshot, finished or not, unless somebody uses or fetches it."""
        if not place.directory.exists() and not place.partial.exists():
            return
        with FileLock(place.lock) as lock:
            if lock.try_acquire(exclusive=True):
                self.discard(place.partial)
                self.discard(place.directory)
                log.info("snapshot_removed", directory=str(place.directory))

    def _fits(self, missing_bytes: int) -> bool:
        free = shutil.disk_usage(self._root).free
        return (
            size_bytes(self._root) + missing_bytes <= self._budget_bytes()
            and missing_bytes + self._reserve_bytes <= free
        )

    def _budget_bytes(self) -> int:
        return self._max_bytes or shutil.disk_usage(self._root).total * 9 // 10


def size_bytes(directory: Path) -> int:
    """Return what the files below a directory hold; those that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _segment(path: str) -> str:
    """Return one file name for a path; no two paths share one."""
    if not path:
        return "@root"
    name = quote(path, safe="")
    if len(name) > 200 or name.startswith("."):
        return f"@{hashlib.sha256(path.encode()).hexdigest()}"
    return name
