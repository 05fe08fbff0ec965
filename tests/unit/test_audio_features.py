"""A sound has the same features whatever else happens in the process."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from workers.inference.handlers.audio import features_of


@pytest.fixture
def loading() -> Iterator[None]:
    """Set torch's default as ``from_pretrained`` does while a model loads."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(before)


def _features() -> torch.Tensor:
    extractor: Any = WhisperFeatureExtractor(chunk_length=1)  # type: ignore[no-untyped-call]
    waveform = np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)
    return features_of(extractor, waveform)["input_features"]


def test_a_model_that_loads_leaves_them_alone(request: pytest.FixtureRequest) -> None:
    before = _features()
    request.getfixturevalue("loading")
    beside = _features()
    assert before.dtype == beside.dtype == torch.float32
    assert torch.equal(before, beside)
