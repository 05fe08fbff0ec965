"""The operations as methods of a client, by noun: written once, bound to either client.

Bound to ``Client`` an operation returns its answer; bound to ``AsyncClient``, a coroutine of it.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from client.answers import Event
from client.calls import Call, Conversation, ask
from client.following import Following
from client.operations import files, health, inference, jobs, lifecycle, registry
from client.retries import Retries

P = ParamSpec("P")
T = TypeVar("T")


class SyncDriver(Protocol):
    """Does what an operation says, and returns when it is done."""

    retries: Retries

    def run(self, conversation: Conversation[T]) -> T:
        """Make the calls of a conversation."""

    def follow(self, following: Following) -> Iterator[Event]:
        """Yield the events of a job."""


class AsyncDriver(Protocol):
    """Does what an operation says while others go on."""

    retries: Retries

    async def run(self, conversation: Conversation[T]) -> T:
        """Make the calls of a conversation."""

    def follow(self, following: Following) -> AsyncIterator[Event]:
        """Yield the events of a job."""


D = TypeVar("D", SyncDriver, AsyncDriver)


class Group(Generic[D]):
    """Operations on one noun, for one client."""

    def __init__(self, driver: D) -> None:
        self.driver: D = driver


class Operation(Generic[P, T]):
    """An operation as a method of a group."""

    def __init__(self, make: Callable[P, Call[T] | Conversation[T]]) -> None:
        self._make = make

    @overload
    def __get__(self, group: Group[SyncDriver], owner: Any) -> Callable[P, T]: ...

    @overload
    def __get__(
        self, group: Group[AsyncDriver], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, group: Any, owner: Any) -> Any:
        if group is None:
            return self._make

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            made = self._make(*args, **kwargs)
            return group.driver.run(ask(made) if isinstance(made, Call) else made)

        return update_wrapper(method, self._make)


class Streaming(Generic[P]):
    """What yields events as a method of a group."""

    def __init__(self, make: Callable[Concatenate[Retries, P], Following]) -> None:
        self._make = make

    @overload
    def __get__(self, group: Group[SyncDriver], owner: Any) -> Callable[P, Iterator[Event]]: ...

    @overload
    def __get__(
        self, group: Group[AsyncDriver], owner: Any
    ) -> Callable[P, AsyncIterator[Event]]: ...

    def __get__(self, group: Any, owner: Any) -> Any:
        if group is None:
            return self._make

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return group.driver.follow(self._make(group.driver.retries, *args, **kwargs))

        method.__doc__ = self._make.__doc__
        return method


class Jobs(Group[D]):
    """Jobs."""

    get = Operation(jobs.get)
    ls = Operation(jobs.ls)
    wait = Operation(jobs.wait)
    result = Operation(jobs.result)
    cancel = Operation(jobs.cancel)
    retry = Operation(jobs.retry)
    events = Streaming(Following)


class Models(Group[D]):
    """Models on their way, and the stores that they pass."""

    download = Operation(lifecycle.download)
    batch_download = Operation(lifecycle.batch_download)
    upload = Operation(lifecycle.upload)
    register = Operation(lifecycle.register)
    register_ollama = Operation(lifecycle.register_ollama)
    import_model = Operation(lifecycle.import_model)
    local = Operation(registry.local)
    repos = Operation(registry.repos)
    ls = Operation(registry.ls)
    show = Operation(registry.show)
    stats = Operation(registry.stats)
    stage = Operation(registry.stage)
    rollback_stage = Operation(registry.rollback_stage)
    health = Operation(registry.health)


class Inference(Group[D]):
    """Answers of models, and the workers that give them."""

    infer = Operation(inference.infer)
    health = Operation(inference.health)
    stats = Operation(inference.stats)
    clear_cache = Operation(inference.clear_cache)


class Files(Group[D]):
    """Input media."""

    upload = Operation(files.upload)
    get = Operation(files.get)
    delete = Operation(files.delete)


class Health(Group[D]):
    """The API itself."""

    live = Operation(health.live)
    ready = Operation(health.ready)
