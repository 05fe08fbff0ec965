"""Streams that can be stopped while they wait.

A thread that waits in ``recv`` looks at no token, and a model may take minutes to its first word.
So the stream is read by an event loop, where waiting can be called off. The loop has a thread of
its own because the caller's may have a loop already, in a notebook for instance.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from shared.cancellation import CancelToken

T = TypeVar("T")

#: How often a waiting stream looks at its token.
_POLL_SECONDS = 0.1
#: After this long without a message the server is asked whether it still answers.
SILENT_SECONDS = 15.0


def iterate(
    stream: AsyncGenerator[T, None], token: CancelToken, probe: Callable[[], Awaitable[object]]
) -> Generator[T, None, None]:
    """Yield what the stream brings, which is not None; close it at the end, however it comes.

    While the stream is silent, ``probe`` asks the server something else; what it raises ends the
    stream. A server that loads a model answers, and one that is frozen does not.
    """
    with _event_loop() as loop:

        def run(step: Coroutine[Any, Any, T | None]) -> T | None:
            return asyncio.run_coroutine_threadsafe(step, loop).result()

        try:
            while (item := run(_next(stream, token, probe))) is not None:
                yield item
        finally:
            # After Ctrl-C a step may still run; it ends with the loop, and the stream with it.
            with suppress(RuntimeError):
                run(_close(stream))


async def _next(
    stream: AsyncGenerator[T, None], token: CancelToken, probe: Callable[[], Awaitable[object]]
) -> T | None:
    """Return the next item, None at the end; raise what the token says, at most a poll late."""
    token.check()
    clock = asyncio.get_running_loop().time
    step = asyncio.ensure_future(anext(stream, None))
    asking: asyncio.Future[object] | None = None
    heard_at = clock()
    try:
        while not step.done():
            await asyncio.wait({step}, timeout=_POLL_SECONDS)
            token.check()
            if asking is None and clock() - heard_at >= SILENT_SECONDS:
                asking = asyncio.ensure_future(probe())
            elif asking is not None and asking.done() and not step.done():
                asking.result()
                asking, heard_at = None, clock()
    finally:
        tasks = {task for task in (step, asking) if task is not None}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return step.result()


async def _close(stream: AsyncGenerator[T, None]) -> None:
    await stream.aclose()


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop in a thread for the length of a block."""
    loop, ended = asyncio.new_event_loop(), asyncio.Event()

    def serve() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(ended.wait())

    thread = threading.Thread(target=serve, name="ollama-stream", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
