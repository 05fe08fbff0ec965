"""The model cache: its budget, its leases, its order, and what happens when loads go wrong."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.cancellation import CancelToken
from shared.errors import CancelledError, LifecycleError, ModelLoadError, OutOfMemoryError
from workers.inference.cache import Lease, ModelCache
from workers.inference.residents import Eviction, State

#: Long enough for a thread to be scheduled on a busy machine; only a failing test waits for it.
PATIENCE = 30.0


class Warehouse:
    """Makes loaders, and knows which models are in memory."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.in_memory: set[str] = set()
        #: Where each model was loaded last.
        self.devices: dict[str, str] = {}
        self.before_load: Callable[[str], None] = lambda _: None
        self.before_unload: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()

    def loader(
        self, name: str, size_bytes: int = 1, measured_bytes: int | None = None
    ) -> Callable[[], "_Loader"]:
        """Return what the cache makes the model's loader with."""
        return lambda: _Loader(self, name, size_bytes, measured_bytes or size_bytes)

    def loaded(self, name: str) -> None:
        """Note a model in memory, of which there must be one only."""
        with self._lock:
            assert name not in self.in_memory
            self.in_memory.add(name)
            self.loads.append(name)

    def unloaded(self, name: str) -> None:
        """Note that it is gone."""
        with self._lock:
            self.in_memory.remove(name)
            self.unloads.append(name)


class _Loader:
    def __init__(self, warehouse: Warehouse, name: str, size: int, measured: int) -> None:
        self._warehouse = warehouse
        self._name = name
        self._size = size
        self._measured = measured
        self._loaded = False

    def estimate_bytes(self) -> int:
        return self._size

    def load(self, device: str) -> str:
        self._warehouse.devices[self._name] = device
        self._warehouse.before_load(self._name)
        self._warehouse.loaded(self._name)
        self._loaded = True
        return f"model {self._name}"

    def measure_bytes(self) -> int:
        return self._measured

    def unload(self) -> None:
        self._warehouse.before_unload(self._name)
        if self._loaded:
            self._warehouse.unloaded(self._name)


def use_remote(cache: ModelCache[str, str], warehouse: Warehouse, name: str, size: int = 1) -> None:
    """Lease a model that another server holds, and let it go."""
    loader = warehouse.loader(name, size)
    with cache.lease(name, loader, token=CancelToken(), remote=True) as lease:
        assert lease.model == f"model {name}"


def use(cache: ModelCache[str, str], warehouse: Warehouse, name: str, size: int = 1) -> bool:
    """Lease a model and let it go; return whether it was a hit."""
    with cache.lease(name, warehouse.loader(name, size), token=CancelToken()) as lease:
        assert lease.model == f"model {name}"
        return lease.hit


def use_failing(cache: ModelCache[str, str], warehouse: Warehouse, name: str) -> None:
    """Lease a model whose load fails."""

    def fail(_: str) -> None:
        raise ModelLoadError("no such weights")

    warehouse.before_load = fail
    use(cache, warehouse, name)


def in_thread(work: Callable[[], object]) -> "_Outcome":
    """Run ``work`` beside the test."""
    return _Outcome(work)


class _Outcome:
    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._value: object = None
        self._error: LifecycleError | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except LifecycleError as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def get(self) -> object:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the thread is stuck"
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture
def warehouse() -> Warehouse:
    return Warehouse()


def test_the_second_use_is_a_hit(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    assert not use(cache, warehouse, "a")
    assert use(cache, warehouse, "a")
    assert warehouse.loads == ["a"]
    assert cache.stats()["hit_rate"] == 0.5


def test_the_least_recently_used_goes_first_when_bytes_run_out(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    for name in ("a", "b", "a"):
        use(cache, warehouse, name, 5)
    use(cache, warehouse, "c", 5)
    assert warehouse.in_memory == {"a", "c"}
    assert cache.stats()["evictions"]["bytes"] == 1


def test_the_count_is_bounded_too(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](100, 2)
    for name in "abc":
        use(cache, warehouse, name)
    assert warehouse.in_memory == {"b", "c"}
    assert cache.stats()["evictions"]["count"] == 1


def test_no_more_goes_than_must(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    for name in "abcde":
        use(cache, warehouse, name, 2)
    use(cache, warehouse, "f", 3)
    assert warehouse.unloads == ["a", "b"]


def test_pinned_models_go_last(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](2, 10)
    with cache.lease("vip", warehouse.loader("vip"), token=CancelToken(), pinned=True):
        pass
    use(cache, warehouse, "a")
    use(cache, warehouse, "b")
    assert warehouse.unloads == ["a"]
    use(cache, warehouse, "c", 2)
    assert warehouse.unloads == ["a", "b", "vip"]


def test_models_that_another_server_holds_count_for_no_limit(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 2)
    use(cache, warehouse, "real", 10)
    for number in range(9):
        use_remote(cache, warehouse, f"remote-{number}", 10**12)
    assert not warehouse.unloads
    assert use(cache, warehouse, "real", 10), "it is still warm"
    use(cache, warehouse, "other", 10)
    assert warehouse.unloads == ["real"], "only a model of this process makes room"
    assert not cache.evict_least_recent(Eviction.OUT_OF_MEMORY, keep="other")
    assert cache.unload_idle(0) == ["other"]
    assert cache.stats()["models"] == 0
    assert len(cache.clear(lambda _: True)[0]) == 9


def test_a_model_in_use_is_waited_for_and_not_evicted(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10, wait_seconds=PATIENCE)
    looking = threading.Event()
    token = _LookedAt(looking)
    with cache.lease("a", warehouse.loader("a", 8), token=CancelToken()):
        other = in_thread(lambda: _lease_once(cache, warehouse, "b", 8, token))
        assert looking.wait(PATIENCE)
        assert other.running
        assert warehouse.in_memory == {"a"}
    other.get()
    assert warehouse.in_memory == {"b"}


def test_the_wait_is_bounded(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10, wait_seconds=0)
    with (
        cache.lease("a", warehouse.loader("a", 8), token=CancelToken()),
        pytest.raises(OutOfMemoryError, match="in use"),
    ):
        use(cache, warehouse, "b", 8)
    assert use(cache, warehouse, "a", 8)
    assert not use(cache, warehouse, "b", 8)


def test_a_cancel_ends_the_wait(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    looking = threading.Event()
    token = _LookedAt(looking)
    with cache.lease("a", warehouse.loader("a", 8), token=CancelToken()):
        other = in_thread(lambda: _lease_once(cache, warehouse, "b", 8, token))
        assert looking.wait(PATIENCE)
        token.cancel(CancelledError("by the client"))
        with pytest.raises(CancelledError):
            other.get()
    assert [model.key for model in cache.models()] == ["a"]


def test_idle_models_stay_while_their_room_would_not_be_enough(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10, wait_seconds=0)
    use(cache, warehouse, "idle", 2)
    with (
        cache.lease("busy", warehouse.loader("busy", 6), token=CancelToken()),
        pytest.raises(OutOfMemoryError),
    ):
        use(cache, warehouse, "big", 8)
    assert warehouse.unloads == []


def test_a_model_larger_than_the_budget_is_refused_at_once(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    use(cache, warehouse, "a", 5)
    with pytest.raises(ModelLoadError, match="11 bytes") as caught:
        use(cache, warehouse, "b", 11)
    assert caught.value.specific_code == "model_too_large"
    assert warehouse.in_memory == {"a"}


def test_a_model_larger_than_its_estimate_pushes_others_out_when_it_is_idle(
    warehouse: Warehouse,
) -> None:
    cache = ModelCache[str, str](10, 10)
    use(cache, warehouse, "a", 4)
    with cache.lease("b", warehouse.loader("b", 4, measured_bytes=8), token=CancelToken()):
        assert warehouse.in_memory == {"a", "b"}
    assert warehouse.in_memory == {"b"}
    assert cache.stats()["used_bytes"] == 8


def test_memory_is_given_back_before_the_next_model_loads(warehouse: Warehouse) -> None:
    in_memory: list[set[str]] = []
    cache = ModelCache[str, str](10, 10, release=lambda: in_memory.append(set(warehouse.in_memory)))
    use(cache, warehouse, "a", 10)
    use(cache, warehouse, "b", 10)
    assert in_memory == [set()]


def test_many_ask_for_a_cold_model_and_it_is_loaded_once(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    together = threading.Barrier(8)

    def ask() -> bool:
        together.wait(PATIENCE)
        return use(cache, warehouse, "a")

    hits = [outcome.get() for outcome in [in_thread(ask) for _ in range(8)]]
    assert warehouse.loads == ["a"]
    assert sorted(map(bool, hits)) == [False] + 7 * [True]


def test_hits_go_on_while_another_model_loads(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    use(cache, warehouse, "warm")
    loading, go_on = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        loading.set()
        assert go_on.wait(PATIENCE)

    warehouse.before_load = hold
    cold = in_thread(lambda: use(cache, warehouse, "cold"))
    assert loading.wait(PATIENCE)
    assert use(cache, warehouse, "warm")
    assert {model.key: model.state for model in cache.models()}["cold"] is State.LOADING
    go_on.set()
    assert cold.get() is False


def test_two_models_load_at_the_same_time(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    both = threading.Barrier(2)

    def meet(_: str) -> None:
        both.wait(PATIENCE)

    warehouse.before_load = meet
    outcomes = [in_thread(lambda name=name: use(cache, warehouse, name)) for name in "ab"]  # type: ignore[misc]
    for outcome in outcomes:
        outcome.get()
    assert warehouse.in_memory == {"a", "b"}


def test_a_failed_load_leaves_nothing_and_its_waiters_get_the_error(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    loading, waiting = threading.Event(), threading.Event()

    def fail(_: str) -> None:
        loading.set()
        assert waiting.wait(PATIENCE)
        raise ModelLoadError("broken", code="corrupt_weights")

    warehouse.before_load = fail
    first = in_thread(lambda: use(cache, warehouse, "a", 10))
    assert loading.wait(PATIENCE)
    second = in_thread(lambda: _lease_once(cache, warehouse, "a", 10, _LookedAt(waiting)))
    for outcome in (first, second):
        with pytest.raises(ModelLoadError) as caught:
            outcome.get()
        assert caught.value.specific_code == "corrupt_weights"
    assert cache.models() == []
    assert cache.stats()["used_bytes"] == 0
    warehouse.before_load = lambda _: None
    assert not use(cache, warehouse, "a", 10)


def test_when_the_loading_request_is_cancelled_a_waiter_loads(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    loading, waiting = threading.Event(), threading.Event()

    def be_cancelled(_: str) -> None:
        warehouse.before_load = lambda _: None
        loading.set()
        assert waiting.wait(PATIENCE)
        raise CancelledError("by the client")

    warehouse.before_load = be_cancelled
    first = in_thread(lambda: use(cache, warehouse, "a"))
    assert loading.wait(PATIENCE)
    second = in_thread(lambda: _lease_once(cache, warehouse, "a", 1, _LookedAt(waiting)))
    with pytest.raises(CancelledError):
        first.get()
    second.get()
    assert warehouse.loads == ["a"]


def test_models_that_nobody_uses_are_unloaded_but_pinned_ones(warehouse: Warehouse) -> None:
    now = 100.0
    cache = ModelCache[str, str](10, 10, clock=lambda: now)
    with cache.lease("vip", warehouse.loader("vip"), token=CancelToken(), pinned=True):
        use(cache, warehouse, "old")
    now = 150.0
    use(cache, warehouse, "young")
    now = 160.0
    assert cache.unload_idle(30) == ["old"]
    assert warehouse.in_memory == {"vip", "young"}
    assert cache.stats()["evictions"]["idle"] == 1


def test_a_model_that_cannot_be_unloaded_fails_neither_the_request_that_needs_its_room_nor_others(
    warehouse: Warehouse,
) -> None:
    cache = ModelCache[str, str](10, 10)
    use(cache, warehouse, "a", 6)
    warehouse.before_unload = _fail
    assert not use(cache, warehouse, "b", 6), "its load took the room of a"
    assert use(cache, warehouse, "b", 6)
    assert cache.stats()["used_bytes"] == 6, "the bytes of a are given back"
    with pytest.raises(ModelLoadError, match="no such weights"):
        use_failing(cache, warehouse, "c")


def test_models_are_unloaded_after_another_could_not_be(warehouse: Warehouse) -> None:
    now = [0.0]
    cache = ModelCache[str, str](10, 10, clock=lambda: now[0])
    for name in ("a", "b"):
        use(cache, warehouse, name)
    now[0] = 100.0
    warehouse.before_unload = _fail
    assert cache.unload_idle(60) == ["a", "b"]
    warehouse.before_unload = lambda _: None
    use(cache, warehouse, "c")
    now[0] = 200.0
    assert cache.unload_idle(60) == ["c"]
    assert warehouse.unloads == ["c"]


def _fail(_: str) -> None:
    raise RuntimeError("the device is gone")


def test_a_model_is_warm_from_the_begin_of_its_load_until_it_goes(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    changes: list[list[str]] = []
    cache.on_change = lambda: changes.append(sorted(cache.warm()))
    use(cache, warehouse, "a", 6)
    assert changes == [["a"], ["a"]], "when it begins to load, and when it is there"
    assert cache.warm()["a"].model == "model a"
    use(cache, warehouse, "a", 6)
    assert len(changes) == 2, "a hit changes nothing"
    use(cache, warehouse, "b", 6)
    assert changes[2:] == [["a", "b"], ["b"], ["b"], ["b"]]
    cache.clear(lambda _: True)
    assert changes[-1] == []
    with cache.lease("d", warehouse.loader("d"), token=CancelToken(), remote=True):
        assert not cache.warm(), "another server decides how long it stays"
    with pytest.raises(ModelLoadError):
        use_failing(cache, warehouse, "c")
    assert changes[-2:] == [["c"], []]


def test_a_pin_is_a_change(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    use(cache, warehouse, "a")
    changes: list[bool] = []
    cache.on_change = lambda: changes.append(cache.models()[0].pinned)
    for pinned in (True, True, False):
        with cache.lease("a", warehouse.loader("a"), token=CancelToken(), pinned=pinned):
            pass
    assert changes == [True, False]


def test_the_time_of_a_load_is_known_once_it_has_ended(warehouse: Warehouse) -> None:
    now = [0.0]
    cache = ModelCache[str, str](10, 10, clock=lambda: now[0])
    found = []

    def load(_: str) -> None:
        found.append(cache.warm()["a"].load_seconds)
        now[0] += 7.0

    warehouse.before_load = load
    use(cache, warehouse, "a")
    assert [*found, cache.warm()["a"].load_seconds] == [0.0, 7.0]


def test_another_model_may_be_loaded_while_there_is_room_or_an_idle_one(
    warehouse: Warehouse,
) -> None:
    cache = ModelCache[str, str](10, 2)
    assert cache.may_load()
    with cache.lease("a", warehouse.loader("a", 4), token=CancelToken()):
        assert cache.may_load(), "there is room beside it"
        with cache.lease("b", warehouse.loader("b", 4), token=CancelToken()):
            assert not cache.may_load(), "both are in use"
        assert cache.may_load(), "the idle one can go"
    full = ModelCache[str, str](10, 10)
    with full.lease("a", warehouse.loader("c", 10), token=CancelToken()):
        assert not full.may_load(), "all bytes are in use"
    none = ModelCache[str, str]({"cpu": 0}, 1)
    with none.lease("a", warehouse.loader("d", 4), token=CancelToken(), remote=True):
        assert none.may_load(), "it takes no memory of this process"


def test_a_model_in_much_use_is_warm_no_longer_while_another_waits_for_its_room(
    warehouse: Warehouse,
) -> None:
    cache = ModelCache[str, str](10, 10, wait_seconds=PATIENCE)
    looking = threading.Event()
    with ExitStack() as uses:
        for name, size, pinned in (("small", 2, False), ("pinned", 2, True), ("large", 6, False)):
            loader = warehouse.loader(name, size)
            uses.enter_context(cache.lease(name, loader, token=CancelToken(), pinned=pinned))
        with cache.lease("small", warehouse.loader("small", 2), token=CancelToken()):
            pass  # now it is the most recently used
        other = in_thread(lambda: _lease_once(cache, warehouse, "new", 5, _LookedAt(looking)))
        assert looking.wait(PATIENCE)
        assert sorted(cache.warm()) == ["new", "pinned", "small"]
        assert not cache.may_load()
    other.get()
    assert sorted(cache.warm()) == ["new", "pinned", "small"]
    assert cache.may_load()


def test_clearing_leaves_models_in_use_and_names_them(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    use(cache, warehouse, "a")
    with cache.lease("b", warehouse.loader("b"), token=CancelToken()):
        assert cache.clear(lambda _: True) == (["a"], ["b"])
        assert cache.clear(lambda key: key == "c") == ([], [])
    assert warehouse.in_memory == {"b"}


def test_out_of_memory_evicts_the_least_recent_other_model(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10)
    use(cache, warehouse, "a")
    use(cache, warehouse, "b")
    assert cache.evict_least_recent(Eviction.OUT_OF_MEMORY, keep="a")
    assert warehouse.in_memory == {"a"}
    assert not cache.evict_least_recent(Eviction.OUT_OF_MEMORY, keep="a")
    assert cache.stats()["evictions"]["out_of_memory"] == 1


def test_a_model_goes_to_the_first_device_that_is_large_enough(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str]({"cuda:0": 10, "cpu": 100}, 10)
    use(cache, warehouse, "small", 6)
    use(cache, warehouse, "large", 60)
    assert warehouse.devices == {"small": "cuda:0", "large": "cpu"}
    assert {model.key: model.device for model in cache.models()} == warehouse.devices
    assert cache.stats()["devices"] == {
        "cuda:0": {"used_bytes": 6, "max_bytes": 10},
        "cpu": {"used_bytes": 60, "max_bytes": 100},
    }
    with pytest.raises(ModelLoadError, match="101 bytes"):
        use(cache, warehouse, "huge", 101)


def test_only_models_of_the_same_device_make_room_in_bytes(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str]({"cuda:0": 10, "cpu": 100}, 3)
    use(cache, warehouse, "large", 60)
    use(cache, warehouse, "small", 6)
    use(cache, warehouse, "other", 6)
    assert warehouse.unloads == ["small"]
    use(cache, warehouse, "larger", 70)
    assert warehouse.unloads == ["small", "large"]
    assert cache.stats()["evictions"]["bytes"] == 2


def test_models_of_all_devices_count_together(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str]({"cuda:0": 10, "cpu": 100}, 2)
    for name, size in (("large", 60), ("small", 1), ("tiny", 1)):
        use(cache, warehouse, name, size)
    assert warehouse.unloads == ["large"]
    assert cache.stats()["evictions"]["count"] == 1


def test_out_of_memory_evicts_on_the_device_that_has_none(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str]({"cuda:0": 10, "cpu": 100}, 10)
    for name, size in (("large", 60), ("small", 1), ("tiny", 1)):
        use(cache, warehouse, name, size)
    assert cache.evict_least_recent(Eviction.OUT_OF_MEMORY, keep="not there")
    assert cache.evict_least_recent(Eviction.OUT_OF_MEMORY, keep="large") is False
    assert warehouse.unloads == ["small"]


def test_a_modest_load_takes_no_room_from_pinned_models(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](10, 10, wait_seconds=PATIENCE)
    use(cache, warehouse, "plain", 3)
    _preload(cache, warehouse, "first", 6)
    _preload(cache, warehouse, "second", 3)
    assert warehouse.in_memory == {"first", "second"}
    with pytest.raises(OutOfMemoryError, match="priority"):
        _preload(cache, warehouse, "third", 6)
    assert warehouse.in_memory == {"first", "second"}
    use(cache, warehouse, "third", 6)
    assert warehouse.in_memory == {"second", "third"}


def test_who_waits_for_a_modest_load_that_found_no_room_loads_himself(
    warehouse: Warehouse,
) -> None:
    cache = ModelCache[str, str](10, 10)
    _preload(cache, warehouse, "first", 6)
    waiting = threading.Event()
    estimated = _Estimated(warehouse, "second", 6, waiting)
    preload = in_thread(
        lambda: cache.lease(
            "second", lambda: estimated, token=CancelToken(), modest=True
        ).__enter__()
    )
    assert estimated.reached.wait(PATIENCE)
    request = in_thread(lambda: _lease_once(cache, warehouse, "second", 6, _LookedAt(waiting)))
    with pytest.raises(OutOfMemoryError):
        preload.get()
    request.get()
    assert warehouse.in_memory == {"second"}


class _Estimated(_Loader):
    """Waits with its estimate."""

    def __init__(self, warehouse: Warehouse, name: str, size: int, go_on: threading.Event) -> None:
        super().__init__(warehouse, name, size, size)
        self.reached = threading.Event()
        self._go_on = go_on

    def estimate_bytes(self) -> int:
        self.reached.set()
        assert self._go_on.wait(PATIENCE)
        return super().estimate_bytes()


def _preload(cache: ModelCache[str, str], warehouse: Warehouse, name: str, size: int) -> None:
    with cache.lease(
        name, warehouse.loader(name, size), token=CancelToken(), pinned=True, modest=True
    ):
        pass


class _LookedAt(CancelToken):
    """Tells when somebody who waits looks at it."""

    def __init__(self, looked: threading.Event) -> None:
        super().__init__()
        self._looked = looked

    def check(self) -> None:
        self._looked.set()
        super().check()


def _lease_once(
    cache: ModelCache[str, str], warehouse: Warehouse, name: str, size: int, token: CancelToken
) -> None:
    with cache.lease(name, warehouse.loader(name, size), token=token):
        pass


BUDGET, MODELS = 10, 3
NAMES = st.sampled_from("abcdef")


class CacheMachine(RuleBasedStateMachine):
    """Compares the cache with a list of names in the order of their last use."""

    def __init__(self) -> None:
        super().__init__()
        self.warehouse = Warehouse()
        self.cache = ModelCache[str, str](
            BUDGET, MODELS, wait_seconds=0, clock=lambda: 0.0, release=lambda: None
        )
        self.sizes: dict[str, int] = {}
        self.order: list[str] = []
        self.leases: list[tuple[str, AbstractContextManager[Lease[str]]]] = []

    @rule(name=NAMES, size=st.integers(1, BUDGET + 2), pinned=st.booleans())
    def lease(self, name: str, size: int, pinned: bool) -> None:
        """Hold a model, or learn that there is no room for it now."""
        size = self.sizes.setdefault(name, size)
        leased = {held for held, _ in self.leases}
        hit = name in self.warehouse.in_memory
        unloads = len(self.warehouse.unloads)
        lease = self.cache.lease(
            name, self.warehouse.loader(name, size), token=CancelToken(), pinned=pinned
        )
        fits = size <= BUDGET - sum(self.sizes[held] for held in leased) and len(leased) < MODELS
        try:
            assert lease.__enter__().hit == hit
        except (OutOfMemoryError, ModelLoadError):
            assert not hit
            assert not fits
            assert len(self.warehouse.unloads) == unloads
            return
        assert hit or fits
        self.leases.append((name, lease))
        self._used(name)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """End one of the leases."""
        name, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        lease.__exit__(None, None, None)
        self._used(name)

    @rule()
    def evict(self) -> None:
        """Unload the least recently used; of those that are equally dear."""
        pinned = {model.key for model in self.cache.models() if model.pinned}
        leased = {held for held, _ in self.leases}
        idle = [x for x in self.order if x in self.warehouse.in_memory and x not in leased]
        expected = sorted(idle, key=lambda name: name in pinned)
        assert self.cache.evict_least_recent(Eviction.OUT_OF_MEMORY) == bool(idle)
        if expected:
            assert self.warehouse.unloads[-1] == expected[0]

    @rule()
    def clear(self) -> None:
        """Unload all that is idle."""
        leased = {held for held, _ in self.leases}
        unloaded, in_use = self.cache.clear(lambda _: True)
        assert set(in_use) == leased
        assert not leased & set(unloaded)

    @invariant()
    def budget_holds(self) -> None:
        """Check that models never take more than they may, and that the books are right."""
        in_memory = self.warehouse.in_memory
        assert sum(self.sizes[name] for name in in_memory) <= BUDGET
        assert len(in_memory) <= MODELS
        assert self.cache.stats()["used_bytes"] == sum(self.sizes[name] for name in in_memory)
        assert [model.key for model in self.cache.models()] == [
            name for name in self.order if name in in_memory
        ]

    @invariant()
    def leased_models_are_in_memory(self) -> None:
        """Check that nobody lost the model in his hands."""
        assert {name for name, _ in self.leases} <= self.warehouse.in_memory

    def teardown(self) -> None:
        """Let everything go."""
        with ExitStack() as stack:
            for _, lease in self.leases:
                stack.push(lease)

    def _used(self, name: str) -> None:
        self.order = [*(other for other in self.order if other != name), name]


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=40)


def test_threads_keep_the_budget_and_never_lose_a_model(warehouse: Warehouse) -> None:
    cache = ModelCache[str, str](5, 3, wait_seconds=PATIENCE, release=lambda: None)
    start = threading.Barrier(6)
    sizes = {"a": 1, "b": 2, "c": 3, "d": 2, "e": 1}

    def work(offset: int) -> None:
        start.wait(PATIENCE)
        for step in range(30):
            name = "abcde"[(offset * 7 + step * (offset + 1)) % 5]
            with cache.lease(name, warehouse.loader(name, sizes[name]), token=CancelToken()):
                held = set(warehouse.in_memory)
                assert name in held
                assert sum(sizes[other] for other in held) <= 5

    for outcome in [in_thread(lambda n=n: work(n)) for n in range(6)]:  # type: ignore[misc]
        outcome.get()
    stats = cache.stats()
    assert stats["hits"] + stats["misses"] == 180
    assert stats["misses"] == len(warehouse.loads)
