"""Directories that appear, and are replaced, as a whole, and stay through a power cut."""

import ctypes
import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file, or a directory's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_directory(new: Path, place: Path) -> None:
    """Move a directory to its place; what is there, if anything, ends up where the new one was."""
    if not place.exists():
        new.rename(place)
        return
    try:
        _exchange(new, place)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
            raise
        # Without the system call (macOS, NFS) the model is gone between the first two renames.
        replaced = new.with_name("replaced")
        place.rename(replaced)
        new.rename(place)
        replaced.rename(new)


def _exchange(first: Path, second: Path) -> None:
    """Swap two directories in one step, by Linux' renameat2."""
    at_cwd, rename_exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), rename_exchange):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(first))
