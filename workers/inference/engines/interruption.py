"""A cancel stops a model between two of its layers: a long prompt is one step of generation.

What cannot be interrupted is then one layer's work, not one step's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from shared.cancellation import CancelToken

#: The token of the call that this thread works on: several share a model.
_TOKEN: ContextVar[CancelToken | None] = ContextVar("interruptible_token", default=None)


def make_interruptible(model: nn.Module) -> None:
    """Have every layer look at the token before it runs."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for layer in module:
                layer.register_forward_pre_hook(_look)


@contextmanager
def interruptible(token: CancelToken) -> Iterator[None]:
    """Let a token interrupt the models that this thread runs in the block."""
    before = _TOKEN.set(token)
    try:
        yield
    finally:
        _TOKEN.reset(before)


def _look(_module: nn.Module, _inputs: Any) -> None:
    token = _TOKEN.get()
    if token is not None:
        token.check()
