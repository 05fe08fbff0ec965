"""Files of a model that are made to harm whoever reads them: refused as the model's fault."""

import json
import pickle
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.errors import LifecycleError, ModelLoadError
from workers.inference.architectures import read_config
from workers.inference.weights import tensors

TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def with_header(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(4)


def with_tensor(**changes: Any) -> bytes:
    return with_header(json.dumps({"weight": TENSOR | changes}).encode())


WEIGHTS: Mapping[str, bytes] = {
    "a pickle": pickle.dumps({"weight": [1.0]}),
    "a pickle after a length": with_header(pickle.dumps({"weight": [1.0]})),
    "a header of 2**64 - 1 bytes": with_header(b"{}", 2**64 - 1),
    "a header of 99 MB that is not there": with_header(b"{}", 99_000_000),
    "a header that nests": with_header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a million dimensions": with_tensor(shape=[2**62] * 1_000_000),
    "a dimension of 4,000 digits": with_tensor(shape=[10**4000]),
    "a dimension that is negative": with_tensor(shape=[-1, -1]),
    "a dimension that is a text": with_tensor(shape=["a"]),
    "a type that is a list": with_tensor(dtype=[]),
    "offsets beyond the file": with_tensor(data_offsets=[0, 2**60]),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_refused_in_no_time(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS[name])
    began = time.monotonic()
    with pytest.raises(LifecycleError) as caught:
        list(tensors(tmp_path))
    assert caught.value.specific_code == "corrupt_weights"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "NaN", "[]"])
def test_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelLoadError) as caught:
        read_config(tmp_path)
    assert caught.value.specific_code == "corrupt_config"
