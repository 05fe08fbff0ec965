"""Calls of Redis that many tasks of an event loop make at the same time, sent together.

Under load a call costs less for itself than for its way: with one write and one read for all calls
that wait, an API process and Redis have more time for the calls.
"""

import asyncio
from collections import deque
from typing import Any

import redis
from redis.asyncio import Redis

#: The most calls that are sent together: Redis answers none of them before all are done.
MOST = 64
#: Groups of calls that are under way at once.
GROUPS = 2

#: A command with its arguments.
Command = tuple[str | int | float, ...]


class SharedCalls:
    """Sends the commands of concurrent tasks together; belongs to one event loop."""

    def __init__(self, client: Redis) -> None:
        self._redis = client
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._senders = set[asyncio.Task[None]]()

    async def send(self, command: Command) -> Any:
        """Return the answer to a command; raise as redis-py's client does."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if len(self._senders) < GROUPS:
            # It starts when the tasks that are ready now have made their calls.
            sender = asyncio.create_task(self._send_all())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await answer

    async def _send_all(self) -> None:
        while self._waiting:
            calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]
            pipe = self._redis.pipeline(transaction=False)
            for command, _ in calls:
                pipe.execute_command(*command)
            try:
                answers = await pipe.execute(raise_on_error=False)
            except (redis.RedisError, OSError) as error:
                answers = [error] * len(calls)
            for (_, future), answer in zip(calls, answers, strict=True):
                if future.done():
                    continue  # who called it was cancelled
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
