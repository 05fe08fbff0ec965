"""What a model looks at comes in its own type; what it counts with stays exact."""

from types import SimpleNamespace

import torch

from workers.inference.engines.transformers_engine import _moved


def test_only_what_is_seen_or_heard_takes_the_models_type() -> None:
    model = SimpleNamespace(device="cpu", dtype=torch.bfloat16)
    inputs = {
        "pixel_values_videos": torch.tensor([0.3]),
        "second_per_grid_ts": torch.tensor([0.3]),
        "input_ids": torch.tensor([3]),
    }
    moved = _moved(inputs, model)
    assert moved["pixel_values_videos"].dtype == torch.bfloat16
    assert torch.equal(moved["second_per_grid_ts"], torch.tensor([0.3]))
    assert moved["input_ids"].dtype == torch.int64
