"""The ledger for the API server: it holds no thread while Redis works.

Under load most of a call's cost is the way to Redis and back. So calls that wait at the same time
are written together, and their answers are read together.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared.jobs import Job
from shared.ledger.connection import is_of_replica, redis_errors
from shared.ledger.counts import Counts
from shared.ledger.listings import Filter
from shared.ledger.queries import Queries
from shared.ledger.record import NewJob
from shared.ledger.scripts import Commands, Operation, Scripts, Steps
from shared.settings import LedgerSettings

T = TypeVar("T")
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
        self._senders = set[asyncio.Task[Any] | None]()

    async def send(self, command: Command) -> Any:
        """Return the answer to a command; raise as redis-py's client does."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if len(self._senders) < GROUPS:
            # It starts when the tasks that are ready now have made their calls.
            self._senders.add(asyncio.create_task(self._send_all()))
        return await answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        finally:
            # Not when the task is done, which is later: a call that comes before that must start
            # another sender.
            self._senders.discard(asyncio.current_task())

    async def _send_some(self) -> None:
        calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]
        commands = [command for command, _ in calls]
        try:
            answers = await self._answers(commands)
            if any(map(is_of_replica, answers)):
                # Behind the same address there may be a new primary.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                answers = await self._answers(commands)
        except Exception as error:  # noqa: BLE001 - it is the callers'
            answers = [error] * len(calls)
        for (_, future), answer in zip(calls, answers, strict=True):
            if future.done():
                continue  # who called it was cancelled
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute(raise_on_error=False))


class AsyncLedger:
    """What clients ask of the ledger; ``Ledger`` documents each operation."""

    def __init__(self, client: "Redis", settings: LedgerSettings) -> None:
        self._redis = client
        self._calls = SharedCalls(client)
        self._queries = Queries(settings)
        self._scripts = Scripts(settings)

    async def accept(
        self, job: NewJob, children: Sequence[NewJob] = (), idempotency_key: str | None = None
    ) -> tuple[Job, bool]:
        """Accept a job, with its children; return it and whether it is new."""
        return await self._do(self._queries.accept(job, children, idempotency_key))

    async def accepted_before(self, job: NewJob, idempotency_key: str) -> Job | None:
        """Return the job that ``accept`` would give for a key that was used; None if it was not."""
        return await self._do(self._queries.accepted_before(job, idempotency_key))

    async def cancel(self, job_id: str, idempotency_key: str | None = None) -> Job:
        """Cancel a job; a call with the key of the job's last call gives what that gave."""
        return await self._do(self._queries.cancel(job_id, idempotency_key))

    async def revive(self, job_id: str, idempotency_key: str | None = None) -> Job:
        """Queue a failed or cancelled job again; the key does what it does for ``cancel``."""
        return await self._do(self._queries.revive(job_id, idempotency_key))

    async def get(self, job_id: str) -> Job:
        """Return a job."""
        return await self._do(self._queries.get(job_id))

    async def page(
        self, wanted: Filter, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Job], str | None]:
        """Return jobs that fit, newest first, and the cursor of the next page if there is one."""
        return await self._do(self._queries.page(wanted, limit, cursor))

    async def ended(self, job_id: str) -> bool:
        """Return whether a job has ended, or is forgotten."""
        return await self._do(self._queries.ended(job_id))

    async def await_end(self, job_id: str, channel: str) -> bool:
        """Have the job's end published on a channel; return False if it has ended already."""
        return await self._do(self._queries.await_end(job_id, channel))

    async def follow(self, job_id: str) -> None:
        """Have the job's events written; the first ones say how it is now."""
        await self._do(self._queries.follow(job_id))

    async def queued(self, queue: str) -> int:
        """Return how many jobs wait in a queue."""
        return await self._do(self._queries.queued(queue))

    async def counts(self) -> Counts:
        """Return what happened so far, and what waits."""
        return await self._do(self._queries.counts())

    async def ping(self) -> None:
        """Raise ``UnavailableError`` if Redis does not answer."""
        await self._do(self._queries.ping())

    async def _do(self, steps: Steps[T]) -> T:
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Operation):
                    answer = await self._call(step)
                else:
                    answer = await self._send(step)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return] # typeshed has Any here

    async def _call(self, operation: Operation) -> Any:
        source, digest = self._scripts.find(operation.name)
        arguments = (1, self._scripts.prefix, *self._scripts.arguments(operation))
        with redis_errors():
            try:
                answer, _ = await self._calls.send(("EVALSHA", digest, *arguments))
            except NoScriptError:
                answer, _ = await self._calls.send(("EVAL", source, *arguments))
        return answer

    async def _send(self, step: Commands) -> list[Any]:
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for command in step.commands:
                pipe.execute_command(*command)
            return list(await pipe.execute())
