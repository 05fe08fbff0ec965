"""Content on disk under its sha256, and the digests that git and git-lfs name it by."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

from embedded.hub.errors import PublishError
from embedded.hub.records import FileEntry

LFS_SIZE_BYTES = 10 * 1000 * 1000
_CHUNK_BYTES = 1 << 20
# The suffixes of the hub's own .gitattributes template.
_LFS_NAME = re.compile(
    r".*\.(7z|arrow|bin|bz2|ckpt|ftz|gguf|gz|h5|joblib|mlmodel|model|msgpack|npy|npz|onnx|ot"
    r"|parquet|pb|pickle|pkl|pt|pth|rar|safetensors|tar|tflite|tgz|wasm|xz|zip|zst)"
)


class BlobStore:
    """A content-addressed folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Return where the content of that digest lies."""
        return self._folder / sha256[:2] / sha256

    def add(self, source: Path, path: str) -> FileEntry:
        """Copy a file in, digesting it on the way, and describe it as a model's file at `path`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as copy:
                entry = _copy(source, copy.fileno(), path)
            target = self.path(entry.sha256)
            target.parent.mkdir(exist_ok=True)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return entry


def is_lfs(path: str, size_bytes: int) -> bool:
    """Whether the hub keeps a file out of git: weights by their suffix, and all that is large."""
    return size_bytes > LFS_SIZE_BYTES or _LFS_NAME.fullmatch(path.rpartition("/")[2]) is not None


def git_digest(kind: str, content: bytes) -> str:
    """Return git's id of an object."""
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _copy(source: Path, target: int, path: str) -> FileEntry:
    size = source.stat().st_size
    sha256 = hashlib.sha256()
    sha1 = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    large = is_lfs(path, size)
    copied = 0
    with source.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            if not large:
                sha1.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view) :]
            copied += len(chunk)
    if copied != size:
        raise PublishError(f"{source} changed while it was published")
    if not large:
        return FileEntry(
            path=path, size_bytes=size, sha256=sha256.hexdigest(), blob_id=sha1.hexdigest()
        )
    pointer = lfs_pointer(sha256.hexdigest(), size)
    return FileEntry(
        path=path,
        size_bytes=size,
        sha256=sha256.hexdigest(),
        blob_id=git_digest("blob", pointer),
        pointer_size=len(pointer),
    )


def lfs_pointer(sha256: str, size_bytes: int) -> bytes:
    """Return what git holds in place of a large file (git-lfs spec, "The Pointer")."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n"
    ).encode()
