"""Threads for submits alone, so that those who only look never stand behind them.

Few: what a submit does is the processor's work, and more at once make none of them faster. And if
MLflow hangs, it is these that hang with it.
"""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
T = TypeVar("T")

_SUBMITS = CapacityLimiter(2)


async def in_submit_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread when its turn comes, and return what it returns."""
    return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=_SUBMITS)
