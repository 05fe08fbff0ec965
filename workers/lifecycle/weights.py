"""A model's weights in lakeFS, told from file names and a few bytes of each header."""

import json
import struct
from collections.abc import Mapping
from pathlib import PurePosixPath

from shared.errors import ModelLoadError, UnsafeModelError
from shared.lakefs.store import LakeFSStore
from shared.models import LakeFSLocation, StoredFile
from workers.inference.weights import (
    INDEX,
    MALFORMED,
    MAX_HEADER_BYTES,
    PICKLES,
    SINGLE,
    elements,
    size_of_file,
)

#: Most headers fit, so that one request a file is enough.
FIRST_BYTES = 1 << 18


class StoredWeights:
    """The safetensors files of a model's directory."""

    def __init__(
        self, store: LakeFSStore, location: LakeFSLocation, files: Mapping[str, StoredFile]
    ) -> None:
        self._store = store
        self._location = location
        self._files = files

    @property
    def present(self) -> bool:
        """Whether there are any."""
        return not self._files.keys().isdisjoint({INDEX, SINGLE})

    def count_parameters(self) -> int:
        """Return the elements of all tensors; raise unless all weights are sound safetensors."""
        return sum(self._elements(name) for name in self._names())

    def _names(self) -> list[str]:
        """Return the files that hold the weights, those that transformers will read."""
        names = self._shards() if INDEX in self._files else [SINGLE]
        missing = [name for name in names if name not in self._files]
        if not missing:
            return names
        pickles = [path for path in self._files if PurePosixPath(path).suffix in PICKLES]
        if missing == [SINGLE] and pickles:
            raise UnsafeModelError(
                f"{self._location.uri} has its weights only as pickles ({pickles[0]}), which can "
                "run code when they are loaded; safetensors are needed",
                field="path",
                code="pickle_weights",
            )
        raise ModelLoadError(
            f"{self._location.uri} lacks weight files: {', '.join(missing)}",
            field="path",
            code="missing_weights",
        )

    def _shards(self) -> list[str]:
        index = self._read(INDEX, 0, self._files[INDEX].size_bytes)
        try:
            names = sorted(set(json.loads(index)["weight_map"].values()))
            if not all(isinstance(name, str) for name in names):
                raise ValueError("it names no files")
        except MALFORMED as error:
            raise self._corrupt(INDEX, error) from error
        return names

    def _elements(self, name: str) -> int:
        """Return the elements of one file's tensors; its size must be what its header says."""
        size_bytes = self._files[name].size_bytes
        head = self._read(name, 0, FIRST_BYTES)
        try:
            (length,) = struct.unpack_from("<Q", head)
            if length > min(MAX_HEADER_BYTES, size_bytes - 8):
                raise ValueError("its header is longer than it may be")
            if length > len(head) - 8:
                head += self._read(name, len(head), length + 8 - len(head))
            tensors = json.loads(head[8 : 8 + length])
            tensors.pop("__metadata__", None)
            end = size_of_file(length, tensors)
            if end != size_bytes:
                raise ValueError(f"it should have {end} bytes and has {size_bytes}")
            return sum(elements(each["shape"]) for each in tensors.values())
        except MALFORMED as error:
            raise self._corrupt(name, error) from error

    def _read(self, name: str, start: int, length: int) -> bytes:
        at = self._location
        path = f"{at.path}/{name}" if at.path else name
        return self._store.read(at.repo, at.commit, path, start, length)

    def _corrupt(self, name: str, error: Exception) -> ModelLoadError:
        return ModelLoadError(
            f"{name} of {self._location.uri} is corrupt: {error}",
            field="path",
            code="corrupt_weights",
        )
