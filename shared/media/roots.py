"""Media under directories that the operator has opened to requests."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from shared.media.errors import not_found, path_refused
from shared.media.references import SHOWN_CHARACTERS


class MediaRoots:
    """Opens files under the media roots and no others, wherever ``..`` and symlinks point."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)

    def open(self, path: str, field: str) -> BinaryIO:
        """Open a file; a relative path is looked for under each root in turn."""
        if not self._roots:
            raise path_refused("paths are not taken here: no media root is configured", field)
        shown = path[:SHOWN_CHARACTERS]
        inside = [found for root in self._roots if (found := _resolve(root, path))]
        if not inside:
            # Whether the file exists outside is not the client's affair: the answer is the same.
            raise path_refused(f"{shown!r} does not lie under a media root", field)
        for candidate in inside:
            if file := _open_regular(candidate):
                return file
        raise not_found(f"there is no file {shown!r}", field)


def _resolve(root: Path, path: str) -> Path | None:
    """Return where a path leads, if that is under the root."""
    try:
        top = root.resolve()
        found = (top / path).resolve()
    except (OSError, RuntimeError):  # a name too long, a loop of symlinks
        return None
    return found if found.is_relative_to(top) else None


def _open_regular(path: Path) -> BinaryIO | None:
    """Open what must be an ordinary file, and must not have become a symlink meanwhile."""
    try:
        # Without waiting for the other end, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
