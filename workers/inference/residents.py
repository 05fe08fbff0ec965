"""The cache's books: which models are in memory, what they take, and who goes first.

Plain bookkeeping without locks or I/O; ``ModelCache`` calls it with its lock held.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
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

    def load(self, device: str) -> T_co:
        """Load the model to the device that the cache chose for it."""

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
    #: Where it is; empty while that is not known.
    device: str
    leases: int
    pinned: bool
    #: Whether another server holds it, and its memory.
    remote: bool
    hits: int
    idle_seconds: float


@dataclass(frozen=True)
class WarmModel(Generic[T]):
    """A model that a job finds in memory, or about to be."""

    #: None while it loads.
    model: T | None
    #: How long its load took; 0 while it loads.
    load_seconds: float


class Resident(Generic[K, T]):
    """A model in memory, or on its way in or out."""

    def __init__(
        self,
        key: K,
        loader: Loader[T],
        *,
        pinned: bool = False,
        modest: bool = False,
        remote: bool = False,
    ) -> None:
        self.key = key
        self.loader = loader
        self.pinned = pinned
        #: Another server holds it: it takes no memory here and makes room for no other model.
        self.remote = remote
        #: Nobody waits for it: it neither waits for room, nor takes any from pinned models.
        self.modest = modest
        self.state = State.LOADING
        self.model: T | None = None
        #: Why the load failed, for those who wait for it; None if they should try themselves.
        self.error: LifecycleError | None = None
        #: The estimate once it is reserved, then the measure; None before.
        self.size_bytes: int | None = None
        #: Whose memory it takes; empty until it is chosen.
        self.device = ""
        #: Whether those that go for it are gone: until then its bytes are still theirs.
        self.has_room = False
        #: The room that its load waits for: bytes and device; None if it does not wait.
        self.awaits: tuple[int, str] | None = None
        self.load_seconds = 0.0
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
            device=self.device,
            leases=self.leases,
            pinned=self.pinned,
            remote=self.remote,
            hits=self.hits,
            idle_seconds=now - self.used_at if self.idle else 0.0,
        )

    def ended_loading(self) -> bool:
        """Whether those who wait for the load can go on."""
        return self.state is not State.LOADING


class Residents(Generic[K, T]):
    """The models by key, in the order of their last use, within a budget for each device."""

    def __init__(self, max_bytes: Mapping[str, int], max_models: int) -> None:
        self.max_bytes = dict(max_bytes)
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

    def device_for(self, needed_bytes: int) -> str | None:
        """Return the first device whose budget takes so much; None if there is none."""
        return next((name for name, most in self.max_bytes.items() if needed_bytes <= most), None)

    def used_bytes(self, device: str) -> int:
        """Return what models take, and what those take that are on their way out."""
        return _bytes_on(device, [r for r in (*self, *self._leaving) if r.has_room])

    def evictable(self, *, with_pinned: bool = True) -> list[Resident[K, T]]:
        """Return the idle models, those to go first in front: not pinned, least recently used.

        Remote ones are not among them: their end would make no room here.
        """
        idle = [r for r in self if r.idle and not r.remote and (with_pinned or not r.pinned)]
        return sorted(idle, key=lambda r: r.pinned)

    def has_room(self, newcomer: Resident[K, T], needed_bytes: int, device: str) -> bool:
        """Return whether a model would fit if all that may make room for it went."""
        idle = self.evictable(with_pinned=not newcomer.modest)
        kept = _bytes_on(device, self) - _bytes_on(device, idle)
        return (
            not self._leaving
            and kept + needed_bytes <= self.max_bytes[device]
            and self._count() - len(idle) < self.max_models
        )

    def may_load(self) -> bool:
        """Return whether another model could be loaded, as far as its size is not needed."""
        if any(r.awaits for r in self):
            return False
        if self.evictable():
            return True
        used = {device: self.used_bytes(device) for device in self.max_bytes}
        has_bytes = any(
            not used[device] or used[device] < self.max_bytes[device] for device in used
        )
        return has_bytes and sum(not r.remote for r in self) < self.max_models

    def warm(self) -> dict[K, WarmModel[T]]:
        """Return the models that further jobs may use, in memory or loading.

        Without those that must go for a load that waits for room: the jobs of a model in much use
        would never leave it idle.
        """
        outgoing = self._outgoing()
        return {
            r.key: WarmModel(r.model, r.load_seconds)
            for r in self
            if not r.remote and r.key not in outgoing
        }

    def _outgoing(self) -> set[K]:
        """Return the models that must go for the load that has waited for room the longest."""
        waiting = next((r for r in self if r.awaits), None)
        if waiting is None or waiting.awaits is None:
            return set()
        needed_bytes, device = waiting.awaits
        count, used_bytes = self._count(), _bytes_on(device, self)
        outgoing: set[K] = set()
        ready = [r for r in self if r.state is State.READY and not r.remote]
        for resident in sorted(ready, key=lambda r: r.pinned):
            is_full = used_bytes + needed_bytes > self.max_bytes[device]
            if not is_full and count < self.max_models:
                break
            if resident.device == device or not is_full:
                outgoing.add(resident.key)
                count -= 1
                used_bytes -= (resident.size_bytes or 0) * (resident.device == device)
        return outgoing

    def reserve(
        self, newcomer: Resident[K, T], needed_bytes: int, device: str
    ) -> list[tuple[Resident[K, T], Eviction]]:
        """Give a model its room, and take out those that must go for it."""
        candidates = self.evictable(with_pinned=not newcomer.modest)
        newcomer.size_bytes, newcomer.device = needed_bytes, device
        return self._take_surplus(candidates, device)

    def trim(self, device: str) -> list[tuple[Resident[K, T], Eviction]]:
        """Take out what must go because a model came out larger than its estimate."""
        return self._take_surplus(self.evictable(), device)

    def take(self, resident: Resident[K, T]) -> Resident[K, T]:
        """Stop offering an idle model; its memory counts until it is ``gone``."""
        del self._by_key[resident.key]
        self._leaving.append(resident)
        return resident

    def take_where(self, matches: Callable[[Resident[K, T]], bool]) -> list[Resident[K, T]]:
        """Stop offering all idle models that match."""
        return [
            self.take(resident) for resident in list(self) if resident.idle and matches(resident)
        ]

    def gone(self, resident: Resident[K, T]) -> None:
        """Count it no more."""
        self._leaving.remove(resident)

    def _take_surplus(
        self, candidates: list[Resident[K, T]], device: str
    ) -> list[tuple[Resident[K, T], Eviction]]:
        """Take out the first of the candidates until the budget holds."""
        victims = []
        for resident in [r for r in candidates if r.device == device]:
            if _bytes_on(device, self) <= self.max_bytes[device]:
                break
            victims.append((self.take(resident), Eviction.BYTES))
            candidates.remove(resident)
        for resident in candidates:
            if self._count() <= self.max_models:
                break
            victims.append((self.take(resident), Eviction.COUNT))
        return victims

    def _count(self) -> int:
        """Return how many models have memory here; one that still waits for room has none."""
        return sum(r.size_bytes is not None and not r.remote for r in self)


def _bytes_on(device: str, residents: Iterable[Resident[K, T]]) -> int:
    return sum(r.size_bytes or 0 for r in residents if r.device == device)
