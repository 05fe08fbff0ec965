"""The cache's books: which models are in memory, what they take, and who goes first.

Plain bookkeeping without locks or I/O; ``ModelCache`` calls it with its lock held.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from shared.errors import LifecycleError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Loader(Protocol[T_co]):
    """How the cache gets one model, and parts with it."""

    def estimate_bytes(self) -> int:
        """Return what the model will take; may fetch its files first."""

    def load(self) -> T_co:
        """Load the model."""

    def measure_bytes(self) -> int:
        """Return what the loaded model takes."""

    def unload(self) -> None:
        """Free whatever the other three took; called once, also after one of them failed."""


class State(StrEnum):
    """Where a model is on its way into the cache."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class Eviction(StrEnum):
    """Why a model was unloaded."""

    BYTES = "bytes"
    COUNT = "count"
    IDLE = "idle"
    CLEARED = "cleared"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class CachedModel(Generic[K]):
    """A model of the cache at one moment."""

    key: K
    state: State
    size_bytes: int
    leases: int
    pinned: bool
    hits: int
    idle_seconds: float


class Resident(Generic[K, T]):
    """A model in memory, or on its way in or out."""

    def __init__(self, key: K, loader: Loader[T], *, pinned: bool) -> None:
        self.key = key
        self.loader = loader
        self.pinned = pinned
        self.state = State.LOADING
        self.model: T | None = None
        #: Why the load failed, for those who wait for it; None if they should try themselves.
        self.error: LifecycleError | None = None
        #: The estimate once it is reserved, then the measure; None before.
        self.size_bytes: int | None = None
        self.leases = 1
        self.hits = 0
        self.used_at = 0.0

    @property
    def idle(self) -> bool:
        """Whether it may be evicted."""
        return self.state is State.READY and self.leases == 0

    def view(self, now: float) -> CachedModel[K]:
        """Return it as it is now."""
        return CachedModel(
            key=self.key,
            state=self.state,
            size_bytes=self.size_bytes or 0,
            leases=self.leases,
            pinned=self.pinned,
            hits=self.hits,
            idle_seconds=now - self.used_at if self.idle else 0.0,
        )

    def ended_loading(self) -> bool:
        """Whether those who wait for the load can go on."""
        return self.state is not State.LOADING


class Residents(Generic[K, T]):
    """The models by key, in the order of their last use, within a budget."""

    def __init__(self, max_bytes: int, max_models: int) -> None:
        self.max_bytes = max_bytes
        self.max_models = max_models
        self._by_key: OrderedDict[K, Resident[K, T]] = OrderedDict()
        #: No longer offered, their memory not yet free.
        self._leaving: list[Resident[K, T]] = []

    def __iter__(self) -> Iterator[Resident[K, T]]:
        return iter(self._by_key.values())

    def get(self, key: K) -> Resident[K, T] | None:
        """Return the model of that key, ready or loading."""
        return self._by_key.get(key)

    def add(self, resident: Resident[K, T]) -> None:
        """Offer a model, most recently used."""
        self._by_key[resident.key] = resident

    def remove(self, resident: Resident[K, T]) -> None:
        """Forget a model whose load failed."""
        del self._by_key[resident.key]

    def touch(self, resident: Resident[K, T], now: float) -> None:
        """Make it the most recently used."""
        resident.used_at = now
        self._by_key.move_to_end(resident.key)

    def used_bytes(self) -> int:
        """Return what models take, are about to take, and have not yet given back."""
        return sum(r.size_bytes or 0 for r in (*self, *self._leaving))

    def evictable(self) -> list[Resident[K, T]]:
        """Return the idle models, those to go first in front: not pinned, least recently used."""
        return sorted((r for r in self if r.idle), key=lambda r: r.pinned)

    def has_room(self, needed_bytes: int) -> bool:
        """Return whether a model would fit if all idle ones went."""
        idle = self.evictable()
        kept = self.used_bytes() - sum(r.size_bytes or 0 for r in idle)
        return (
            not self._leaving
            and kept + needed_bytes <= self.max_bytes
            and self._count() - len(idle) < self.max_models
        )

    def make_room(self, needed_bytes: int, models: int) -> list[tuple[Resident[K, T], Eviction]]:
        """Take out the idle models that must go for ``models`` more of so many bytes in all."""
        victims = []
        used, count = self.used_bytes() - self._leaving_bytes(), self._count()
        for resident in self.evictable():
            if used + needed_bytes > self.max_bytes:
                reason = Eviction.BYTES
            elif count + models > self.max_models:
                reason = Eviction.COUNT
            else:
                break
            self.take(resident)
            used, count = used - (resident.size_bytes or 0), count - 1
            victims.append((resident, reason))
        return victims

    def take(self, resident: Resident[K, T]) -> Resident[K, T]:
        """Stop offering an idle model; its memory counts until it is ``gone``."""
        del self._by_key[resident.key]
        self._leaving.append(resident)
        return resident

    def take_where(self, matches: Callable[[Resident[K, T]], bool]) -> list[Resident[K, T]]:
        """Stop offering all idle models that match."""
        return [self.take(resident) for resident in self.evictable() if matches(resident)]

    def gone(self, resident: Resident[K, T]) -> None:
        """Count it no more."""
        self._leaving.remove(resident)

    def _leaving_bytes(self) -> int:
        return sum(r.size_bytes or 0 for r in self._leaving)

    def _count(self) -> int:
        """Return how many models have memory; one that still waits for room has none."""
        return sum(r.size_bytes is not None for r in self)
