"""Locks that the processes of a host share, which the system drops when a process dies."""

import fcntl
import os
from pathlib import Path
from typing import Self

from shared.cancellation import CancelToken

_POLL_SECONDS = 0.05


class FileLock:
    """One holder's view of a lock file: shared by readers, exclusive to a writer.

    The file is never removed: whoever still had it open would lock a file that nobody else sees.
    """

    def __init__(self, path: Path) -> None:
        """Open the lock file; take no lock yet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def acquire(self, token: CancelToken, *, exclusive: bool) -> None:
        """Wait for the lock; a cancelled token ends the wait."""
        while not self.try_acquire(exclusive=exclusive):
            token.wait(_POLL_SECONDS)
            token.check()

    def try_acquire(self, *, exclusive: bool) -> bool:
        """Take the lock if it is free now."""
        if self._fd is None:
            raise ValueError(f"the lock {self._path} is closed")
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Drop the lock, keep the file open."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Drop the lock for good."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
