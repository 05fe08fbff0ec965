"""A model's weight files, judged by their names and safetensors headers: no torch needed."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from shared.errors import ModelLoadError, UnsafeModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})

#: Bits of an element, by safetensors' name of its type.
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
#: Types that change when a model is loaded in another floating point type.
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
#: safetensors' own limit.
MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 64
#: What reading a file that is not what it should be raises.
MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    struct.error,
)


@dataclass(frozen=True)
class Tensor:
    """What a header says about one tensor."""

    name: str
    dtype: str
    elements: int

    def size_bytes(self, float_bytes: int | None) -> int:
        """Return its size in memory, floating point numbers held in ``float_bytes`` each."""
        if float_bytes is not None and self.dtype in _FLOATS:
            return self.elements * float_bytes
        return (self.elements * _BITS[self.dtype] + 7) // 8


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files that hold the model; refuse one that lacks some of them."""
    if (directory / INDEX).is_file():
        files = [directory / name for name in _shards(directory / INDEX)]
    else:
        files = [directory / SINGLE]
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return files
    if missing == [SINGLE] and any(file.suffix in PICKLES for file in directory.iterdir()):
        raise UnsafeModelError(
            "the model has only pickle weights, which can run code when loaded; "
            "safetensors are needed",
            code="pickle_weights",
        )
    raise ModelLoadError(f"weight files are missing: {', '.join(missing)}", code="missing_weights")


def tensors(directory: Path) -> Iterator[Tensor]:
    """Yield every tensor of the model."""
    for file in weight_files(directory):
        yield from read_header(file)


def read_header(file: Path) -> list[Tensor]:
    """Read a safetensors header; raise if the file is cut or is something else."""
    size_bytes = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, MAX_HEADER_BYTES)))
        header.pop("__metadata__", None)
        found = [Tensor(name, x["dtype"], elements(x["shape"])) for name, x in header.items()]
        expected_bytes = size_of_file(length, header)
        unknown = {tensor.dtype for tensor in found} - _BITS.keys()
    except MALFORMED as error:
        raise _corrupt(file, str(error)) from None
    if size_bytes != expected_bytes:
        raise _corrupt(file, f"it has {size_bytes} bytes and should have {expected_bytes}")
    if unknown:
        raise _corrupt(file, f"it holds numbers of unknown types: {', '.join(sorted(unknown))}")
    return found


def size_of_file(header_bytes: int, header: Mapping[str, Any]) -> int:
    """Return the bytes of the file that a header belongs to, by what it says of its tensors."""
    return 8 + header_bytes + max((x["data_offsets"][1] for x in header.values()), default=0)


def elements(shape: list[int]) -> int:
    """Return how many numbers a tensor has; refuse a shape that none has, and takes long."""
    if len(shape) > _MAX_DIMENSIONS or not all(type(x) is int and 0 <= x < 2**63 for x in shape):
        raise ValueError("a tensor has a shape that cannot be")
    return prod(shape)


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index points to."""
    try:
        names = sorted({str(x) for x in json.loads(index.read_bytes())["weight_map"].values()})
    except MALFORMED as error:
        raise _corrupt(index, str(error)) from None
    if any(Path(name).name != name for name in names):
        raise _corrupt(index, "it names files outside the model")
    return names


def _corrupt(file: Path, reason: str) -> ModelLoadError:
    """Say which file is broken, and how."""
    return ModelLoadError(f"{file.name} is corrupt: {reason}", code="corrupt_weights")
