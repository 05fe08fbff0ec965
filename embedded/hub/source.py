"""Which files of a directory are the model's."""

import os
from collections.abc import Iterator
from pathlib import Path

from embedded.hub.errors import PublishError

#: Bookkeeping of git and of the hub's client (`--local-dir`), not the model's.
_SKIPPED_FOLDERS = frozenset({".git", ".cache"})


def source_files(directory: Path) -> list[tuple[str, Path]]:
    """Return the path in the model and the place on disk of every file, sorted.

    Links to files are followed, since a client's cache consists of them; a link to a folder is
    refused, because it may lead anywhere or round in a circle.
    """
    if not directory.is_dir():
        raise PublishError(f"{directory} is not a directory")
    files = sorted(_walk(directory))
    if not files:
        raise PublishError(f"{directory} holds no files")
    return files


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        for name in folders:
            if (Path(folder) / name).is_symlink():
                raise PublishError(f"{Path(folder) / name} is a link to a folder")
        for name in names:
            path = Path(folder) / name
            if not path.is_file():
                raise PublishError(f"{path} is not a regular file")
            yield path.relative_to(directory).as_posix(), path
