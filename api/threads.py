"""A bounded number of threads for one purpose, so that nothing else waits behind it."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A few threads; what comes when all are busy waits for its turn."""

    def __init__(self, number: int) -> None:
        self._limiter = CapacityLimiter(number)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in one of them, and return what it returns."""
        return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
