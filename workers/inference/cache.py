"""Warm models: least recently used by bytes and by count, never taken from under a user.

Every use is a lease, and only models without a lease are evicted. A load first reserves its
estimate, so that loads of different models go on at the same time and do not exceed the budget
together. The lock is held for bookkeeping only: models load and unload outside it.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import structlog

from shared.cancellation import CancelToken
from shared.errors import Interruption, LifecycleError, ModelLoadError, OutOfMemoryError
from workers.inference.memory import release_memory
from workers.inference.residents import (
    CachedModel,
    Eviction,
    K,
    Loader,
    Resident,
    Residents,
    State,
    T,
)

log = structlog.get_logger()

#: A cancel does not notify the condition, so waiters look at their token this often.
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Lease(Generic[T]):
    """A model that stays in memory until the lease ends."""

    model: T
    #: Whether it was there already.
    hit: bool


class ModelCache(Generic[K, T]):
    """Keeps models of any engine warm within a budget; safe to use from several threads."""

    def __init__(
        self,
        max_bytes: int,
        max_models: int,
        *,
        wait_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        release: Callable[[], None] = release_memory,
    ) -> None:
        """Set the budget; ``wait_seconds`` bounds the wait for models in use to become idle.

        ``release`` is called after each unload.
        """
        self._residents: Residents[K, T] = Residents(max_bytes, max_models)
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._release_memory = release
        self._changed = threading.Condition()
        self._hits = 0
        self._misses = 0
        self._evictions: Counter[Eviction] = Counter()

    @contextmanager
    def lease(
        self,
        key: K,
        make_loader: Callable[[], Loader[T]],
        *,
        token: CancelToken,
        pinned: bool = False,
    ) -> Iterator[Lease[T]]:
        """Hold the model of ``key``, loading it if need be; a pinned one is evicted last."""
        resident, hit = self._enter(key, make_loader, token, pinned=pinned)
        if not hit:
            self._load(resident, token)
        assert resident.model is not None  # noqa: S101 - a leased model is ready
        try:
            yield Lease(resident.model, hit)
        finally:
            self._release(resident)

    def evict_least_recent(self, reason: Eviction, *, keep: K | None = None) -> bool:
        """Unload the least recently used idle model other than ``keep``; False if there is none."""
        with self._changed:
            first = next((r for r in self._residents.evictable() if r.key != keep), None)
            victims = self._residents.take_where(lambda r: r is first)
        self._unload((victim, reason) for victim in victims)
        return bool(victims)

    def unload_idle(self, idle_seconds: float) -> list[K]:
        """Unload the models that nobody used for this long, except pinned ones."""
        with self._changed:
            latest = self._clock() - idle_seconds
            victims = self._residents.take_where(lambda r: not r.pinned and r.used_at <= latest)
        self._unload((victim, Eviction.IDLE) for victim in victims)
        return [victim.key for victim in victims]

    def clear(self, matches: Callable[[K], bool]) -> tuple[list[K], list[K]]:
        """Unload the idle models that match; return them, and those that match and are in use."""
        with self._changed:
            victims = self._residents.take_where(lambda r: matches(r.key))
            in_use = [r.key for r in self._residents if matches(r.key)]
        self._unload((victim, Eviction.CLEARED) for victim in victims)
        return [victim.key for victim in victims], in_use

    def models(self) -> list[CachedModel[K]]:
        """Return what is in the cache, the least recently used first."""
        with self._changed:
            now = self._clock()
            return [resident.view(now) for resident in self._residents]

    def stats(self) -> dict[str, Any]:
        """Return the budget, what of it is used, and the counts since the start."""
        with self._changed:
            asked = self._hits + self._misses
            return {
                "models": sum(1 for _ in self._residents),
                "max_models": self._residents.max_models,
                "used_bytes": self._residents.used_bytes(),
                "max_bytes": self._residents.max_bytes,
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / asked if asked else 0.0,
                "evictions": {reason.value: self._evictions[reason] for reason in Eviction},
            }

    def _enter(
        self, key: K, make_loader: Callable[[], Loader[T]], token: CancelToken, *, pinned: bool
    ) -> tuple[Resident[K, T], bool]:
        """Lease the model if it is there, wait if somebody loads it, else begin its load."""
        with self._changed:
            while (resident := self._residents.get(key)) is not None:
                if resident.state is State.READY:
                    resident.leases += 1
                    resident.hits += 1
                    resident.pinned = pinned
                    self._residents.touch(resident, self._clock())
                    self._hits += 1
                    return resident, True
                self._wait(resident.ended_loading, token)
                if resident.error is not None:
                    raise _again(resident.error)
            resident = Resident(key, make_loader(), pinned=pinned)
            self._residents.add(resident)
            self._misses += 1
            return resident, False

    def _load(self, resident: Resident[K, T], token: CancelToken) -> None:
        """Load a model that was begun; leave nothing behind on an error."""
        try:
            self._reserve(resident, resident.loader.estimate_bytes(), token)
            model = resident.loader.load()
            size_bytes = resident.loader.measure_bytes()
        except BaseException as error:
            self._abandon(resident, error)
            raise
        with self._changed:
            resident.model, resident.size_bytes = model, size_bytes
            resident.state = State.READY
            self._residents.touch(resident, self._clock())
            self._changed.notify_all()
        log.info("model_loaded", model=str(resident.key), size_bytes=size_bytes)

    def _reserve(self, resident: Resident[K, T], needed_bytes: int, token: CancelToken) -> None:
        """Take ``needed_bytes`` of the budget, from idle models if need be."""
        if needed_bytes > self._residents.max_bytes:
            raise ModelLoadError(
                f"the model needs {needed_bytes} bytes of memory, more than all "
                f"{self._residents.max_bytes} that models may take",
                code="model_too_large",
            )
        with self._changed:
            if not self._wait(
                lambda: self._residents.has_room(needed_bytes), token, self._wait_seconds
            ):
                raise OutOfMemoryError(
                    f"no room for a model of {needed_bytes} bytes within {self._wait_seconds:g} s: "
                    "all others are in use"
                )
            victims = self._residents.make_room(needed_bytes, models=1)
            resident.size_bytes = needed_bytes
        self._unload(victims)

    def _abandon(self, resident: Resident[K, T], error: BaseException) -> None:
        """Undo a load that failed, and tell those who wait for it."""
        try:
            resident.loader.unload()
        finally:
            self._release_memory()
            with self._changed:
                self._residents.remove(resident)
                resident.state = State.FAILED
                if isinstance(error, LifecycleError) and not isinstance(error, Interruption):
                    resident.error = error
                self._changed.notify_all()

    def _release(self, resident: Resident[K, T]) -> None:
        """End a lease; a model that came out larger than its estimate may now push others out."""
        with self._changed:
            resident.leases -= 1
            self._residents.touch(resident, self._clock())
            victims = self._residents.make_room(0, models=0)
            self._changed.notify_all()
        self._unload(victims)

    def _unload(self, victims: Iterable[tuple[Resident[K, T], Eviction]]) -> None:
        """Free models that were taken out, each of them even if another one fails."""
        with ExitStack() as stack:
            for resident, reason in reversed(list(victims)):  # the stack turns them around again
                stack.callback(self._free, resident, reason)

    def _free(self, resident: Resident[K, T], reason: Eviction) -> None:
        """Unload one model and give its bytes back to the budget."""
        resident.model = None
        try:
            resident.loader.unload()
        finally:
            self._release_memory()
            with self._changed:
                self._residents.gone(resident)
                self._evictions[reason] += 1
                self._changed.notify_all()
        log.info("model_unloaded", model=str(resident.key), reason=reason.value)

    def _wait(
        self, ready: Callable[[], bool], token: CancelToken, seconds: float | None = None
    ) -> bool:
        """Wait with the lock held until ``ready``; False if that took longer than ``seconds``."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not ready():
            token.check()
            if deadline is not None and time.monotonic() >= deadline:
                return False
            self._changed.wait(_POLL_SECONDS)
        return True


def _again(error: LifecycleError) -> LifecycleError:
    """Return a copy to raise in another thread, without the first one's traceback."""
    return type(error)(error.detail, field=error.field, code=error.specific_code)
