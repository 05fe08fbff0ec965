"""A model's weight files, judged by their names and safetensors headers: no torch needed."""

import json
import struct
from collections.abc import Iterator
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
    """Return the safetensors files that hold the model; refuse a model that has none, or not all."""
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
    raise ModelLoadError(
        f"weight files are missing: {', '.join(missing)}", code="missing_weights"
    )


def tensors(directory: Path) -> Iterator[Tensor]:
    """Yield every tensor of the model."""
    for file in weight_files(directory):
        yield from read_header(file)


def read_header(file: Path) -> list[Tensor]:
    """Read a safetensors header; raise if the file is cut or is something else."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        found = [Tensor(name, _known(x["dtype"]), prod(x["shape"])) for name, x in header.items()]
        end = max((x["data_offsets"][1] for x in header.values()), default=0)
        if end != size - 8 - length:
            raise ValueError(f"it should hold {end} bytes of data and holds {size - 8 - length}")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise _corrupt(file, error) from None
    return found


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index points to."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if not all(isinstance(name, str) and "/" not in name for name in names):
            raise ValueError("it names files outside the model")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(index, error) from None
    return names


def _known(dtype: Any) -> str:
    """Return the type's name if safetensors has it."""
    if dtype not in _BITS:
        raise ValueError(f"it holds the unknown type {dtype!r}")
    return str(dtype)


def _corrupt(file: Path, error: Exception) -> ModelLoadError:
    """Say which file is broken, and how."""
    return ModelLoadError(f"{file.name} is corrupt: {error!s}", code="corrupt_weights")
