"""Connections to Redis for an event loop that may be late itself.

A timer of asyncio does not know why an answer has not been read. Where the loop stood still for
longer than the timeout, because the machine is busy, the answer lies in the socket, and yet the
timer would end the call.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
from redis.asyncio.connection import AbstractConnection

#: A limit is made of so many shorter times. In each of them the loop looks at its sockets.
_STEPS = 8


@asynccontextmanager
async def loop_time_limit(seconds: float) -> AsyncIterator[None]:
    """Do what ``asyncio.timeout`` does, but without counting the time by which the loop is late."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer: asyncio.TimerHandle

        def wait(steps: int) -> None:
            nonlocal timer
            if steps:
                timer = loop.call_later(seconds / _STEPS, wait, steps - 1)
            else:
                limit.reschedule(loop.time())

        wait(_STEPS)
        try:
            yield
        finally:
            timer.cancel()


class _PatientConnection(AbstractConnection):
    """Overrides what redis-py does with ``asyncio.timeout``."""

    async def _connect(self) -> None:
        seconds, connect = self.socket_connect_timeout, super()._connect  # type: ignore[safe-super]
        if seconds is None:
            await connect()  # type: ignore[no-untyped-call]
            return
        self.socket_connect_timeout = None
        try:
            async with loop_time_limit(seconds):
                await connect()  # type: ignore[no-untyped-call]
        finally:
            self.socket_connect_timeout = seconds

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - redis-py's signature
        **how: Any,
    ) -> Any:
        """Read an answer, within the timeout of the connection if the caller has none."""
        if timeout is not None or self.socket_timeout is None:
            return await super().read_response(disable_decoding, timeout, **how)
        try:
            async with loop_time_limit(self.socket_timeout):
                return await super().read_response(disable_decoding, math.inf, **how)
        except TimeoutError:
            raise redis.TimeoutError("Redis did not answer in time") from None


def patient(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    """Return the class of patient connections over the same transport."""
    return type(f"Patient{connection.__name__}", (_PatientConnection, connection), {})
