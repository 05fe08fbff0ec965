"""Warm models: least recently used by bytes and by count, never taken from under a user.

Each device has its own budget of bytes; a model goes to the first device that is large enough.

Every use is a lease, and only models without a lease are evicted. A load first reserves its
estimate, so that loads of different models go on at the same time and do not exceed the budget
together. The lock is held for bookkeeping only: models load and unload outside it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import structlog

from shared.cancellation import CancelToken
from shared.errors import Interruption, LifecycleError, ModelLoadError, OutOfMemoryError
from workers.inference.cache_counts import CacheCounts, facts
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
    WarmModel,
)
from workers.inference.waiting import wait_until

log = structlog.get_logger()


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
        max_bytes: int | Mapping[str, int],
        max_models: int,
        *,
        wait_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        release: Callable[[], None] = release_memory,
    ) -> None:
        """Set the budget: of the CPU, or of each device in the order in which they are preferred.

        ``wait_seconds`` bounds the wait for models in use to become idle; ``release`` is called
        after each unload.
        """
        budgets = {"cpu": max_bytes} if isinstance(max_bytes, int) else max_bytes
        self._residents: Residents[K, T] = Residents(budgets, max_models)
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._release_memory = release
        self._changed = threading.Condition()
        self._counts = CacheCounts()
        #: Called, without the lock, when another model is warm or pinned than before. It must
        #: return at once.
        self.on_change: Callable[[], None] = lambda: None

    @contextmanager
    def lease(
        self,
        key: K,
        make_loader: Callable[[], Loader[T]],
        *,
        token: CancelToken,
        pinned: bool = False,
        modest: bool = False,
        remote: bool = False,
    ) -> Iterator[Lease[T]]:
        """Hold the model of ``key``, loading it if need be; a pinned one is evicted last.

        A modest load takes no room from pinned models, and fails instead of waiting for room. A
        remote model is held by another server: it counts for no limit, and only ``clear`` ends it.
        """

        def begin() -> Resident[K, T]:
            return Resident(key, make_loader(), pinned=pinned, modest=modest, remote=remote)

        resident, hit = self._enter(key, token, begin)
        if hit:
            self._pin(resident, pinned)
        else:
            self.on_change()
            self._load(resident, token)
        assert resident.model is not None  # noqa: S101 - a leased model is ready
        try:
            yield Lease(resident.model, hit)
        finally:
            self._release(resident)

    def evict_least_recent(self, reason: Eviction, *, keep: K | None = None) -> bool:
        """Unload the least recently used idle model other than ``keep``; False if there is none.

        It makes room on the device of ``keep``, and if that is not in memory, on the first one.
        """
        with self._changed:
            kept = None if keep is None else self._residents.get(keep)
            device = kept.device if kept else next(iter(self._residents.max_bytes))
            idle = (r for r in self._residents.evictable() if r.device == device)
            first = next((r for r in idle if r.key != keep), None)
            victims = self._residents.take_where(lambda r: r is first)
        self._unload((victim, reason) for victim in victims)
        return bool(victims)

    def unload_idle(self, idle_seconds: float) -> list[K]:
        """Unload the models that nobody used for this long, except pinned and remote ones."""
        with self._changed:
            latest = self._clock() - idle_seconds
            victims = self._residents.take_where(
                lambda r: not r.remote and not r.pinned and r.used_at <= latest
            )
        self._unload((victim, Eviction.IDLE) for victim in victims)
        return [victim.key for victim in victims]

    def clear(self, matches: Callable[[K], bool]) -> tuple[list[K], list[K]]:
        """Unload the idle models that match; return them, and those that match and are in use."""
        with self._changed:
            victims = self._residents.take_where(lambda r: matches(r.key))
            in_use = [r.key for r in self._residents if matches(r.key)]
        self._unload((victim, Eviction.CLEARED) for victim in victims)
        return [victim.key for victim in victims], in_use

    def peek(self, key: K) -> T | None:
        """Return a model without a lease, to ask about it; None if it is not loaded."""
        with self._changed:
            resident = self._residents.get(key)
            return resident.model if resident is not None else None

    def models(self) -> list[CachedModel[K]]:
        """Return what is in the cache, the least recently used first."""
        with self._changed:
            now = self._clock()
            return [resident.view(now) for resident in self._residents]

    def stats(self) -> dict[str, Any]:
        """Return the budget, what of it is used, and the counts since the start."""
        with self._changed:
            return self._counts.summary(self._residents)

    def warm(self) -> dict[K, WarmModel[T]]:
        """Return the models of this process that further jobs may use, in memory or loading."""
        with self._changed:
            return self._residents.warm()

    def may_load(self) -> bool:
        """Return whether there is room for another model, or an idle model that can make it."""
        with self._changed:
            return self._residents.may_load()

    def _enter(
        self, key: K, token: CancelToken, make: Callable[[], Resident[K, T]]
    ) -> tuple[Resident[K, T], bool]:
        """Lease the model if it is there, wait if somebody loads it, else begin its load."""
        with self._changed:
            while (resident := self._residents.get(key)) is not None:
                if resident.state is State.READY:
                    resident.leases += 1
                    resident.hits += 1
                    self._residents.touch(resident, self._clock())
                    self._counts.hits += not resident.remote
                    return resident, True
                wait_until(self._changed, resident.ended_loading, token)
                if resident.error is not None:
                    raise _again(resident.error)
            resident = make()
            self._residents.add(resident)
            self._counts.misses += not resident.remote
            return resident, False

    def _load(self, resident: Resident[K, T], token: CancelToken) -> None:
        """Load a model that was begun; leave nothing behind on an error."""
        try:
            needed_bytes = resident.loader.estimate_bytes()
            if not resident.remote:
                self._reserve(resident, needed_bytes, token)
            began = self._clock()
            model = resident.loader.load(resident.device)
            resident.load_seconds = self._clock() - began
            size_bytes = resident.loader.measure_bytes()
        except BaseException as error:
            self._abandon(resident, error)
            raise
        with self._changed:
            resident.model, resident.size_bytes = model, size_bytes
            resident.state = State.READY
            self._residents.touch(resident, self._clock())
            self._changed.notify_all()
        self.on_change()
        log.info("model_loaded", **facts(resident))

    def _reserve(self, resident: Resident[K, T], needed_bytes: int, token: CancelToken) -> None:
        """Take ``needed_bytes`` of a device's budget, from idle models if need be."""
        residents = self._residents
        device = residents.device_for(needed_bytes)
        if device is None:
            raise ModelLoadError(
                f"the model needs {needed_bytes} bytes of memory, more than all "
                f"{max(residents.max_bytes.values())} that models may take",
                code="model_too_large",
            )
        wait_seconds = 0.0 if resident.modest else self._wait_seconds
        with self._changed:
            resident.awaits = needed_bytes, device
            try:
                has_room = wait_until(
                    self._changed,
                    lambda: residents.has_room(resident, needed_bytes, device),
                    token,
                    wait_seconds,
                )
            finally:
                resident.awaits = None
            if not has_room:
                raise OutOfMemoryError(
                    f"no room for a model of {needed_bytes} bytes within {wait_seconds:g} s: "
                    "all others are in use" + " or have priority" * resident.modest
                )
            victims = residents.reserve(resident, needed_bytes, device)
        self._unload(victims)
        resident.has_room = True

    def _abandon(self, resident: Resident[K, T], error: BaseException) -> None:
        """Undo a load that failed, and tell those who wait for it."""
        self._end(resident)
        with self._changed:
            self._residents.remove(resident)
            resident.state = State.FAILED
            nobody_else = resident.modest or isinstance(error, Interruption)
            if isinstance(error, LifecycleError) and not nobody_else:
                resident.error = error
            self._changed.notify_all()
        self.on_change()

    def _pin(self, resident: Resident[K, T], pinned: bool) -> None:
        if resident.pinned != pinned:
            resident.pinned = pinned
            self.on_change()

    def _release(self, resident: Resident[K, T]) -> None:
        """End a lease; a model that came out larger than its estimate may now push others out."""
        with self._changed:
            resident.leases -= 1
            self._residents.touch(resident, self._clock())
            victims = [] if resident.remote else self._residents.trim(resident.device)
            self._changed.notify_all()
        self._unload(victims)

    def _unload(self, victims: Iterable[tuple[Resident[K, T], Eviction]]) -> None:
        """Unload models that were taken out, and give their bytes back to the budget."""
        for resident, reason in victims:
            self.on_change()
            resident.model = None
            self._end(resident)
            with self._changed:
                self._residents.gone(resident)
                self._counts.evictions[reason] += 1
                self._changed.notify_all()
            self.on_change()
            log.info("model_unloaded", reason=reason.value, **facts(resident))

    def _end(self, resident: Resident[K, T]) -> None:
        """Have a model's memory freed. An engine that fails to do so fails nobody's request."""
        try:
            resident.loader.unload()
        except Exception:
            log.exception("model_not_unloaded", **facts(resident))
        self._release_memory()


def _again(error: LifecycleError) -> LifecycleError:
    """Return a copy to raise in another thread, without the first one's traceback."""
    return type(error)(error.detail, field=error.field, code=error.specific_code)
