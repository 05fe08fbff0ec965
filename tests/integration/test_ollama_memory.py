"""Where models of Ollama are is what Ollama says, and nothing is unloaded that somebody uses."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.errors import CancelledError
from shared.settings import OllamaSettings, Settings
from shared.tasks import Engine
from tests.model_stores import DirectoryStore, StaticRegistry
from tests.ollama_server import Fault, FaultKind, Model, OllamaTestServer, ollama_server
from tests.processes import wait_until
from workers.inference.engines.ollama_memory import REPORT_SECONDS
from workers.inference.manager import InferenceManager, build_manager

#: Two names of one file, as after ``ollama cp``; a third with a file of its own.
FIRST, SECOND, OTHER = (
    Model("one:1b", content="same"),
    Model("two:1b", content="same"),
    Model("x:1b"),
)


@pytest.fixture
def remote() -> Iterator[OllamaTestServer]:
    with ollama_server(FIRST, SECOND, OTHER) as server:
        yield server


@pytest.fixture
def registry() -> StaticRegistry:
    registry = StaticRegistry()
    for name, model in (("first", FIRST), ("second", SECOND), ("other", OTHER)):
        registry.add(name, None, engine=Engine.OLLAMA, ollama_model_name=model.name)
    return registry


@pytest.fixture
def manager(
    remote: OllamaTestServer, registry: StaticRegistry, tmp_path: Path
) -> Iterator[InferenceManager]:
    settings = Settings(ollama=OllamaSettings(host=remote.url))
    store = DirectoryStore(tmp_path)
    manager = build_manager(settings, registry, store, remote_engine=Engine.OLLAMA)
    yield manager
    remote.faults.clear()
    manager.close()


def ask(manager: InferenceManager, name: str, token: CancelToken | None = None) -> dict[str, Any]:
    """Return the answer's metadata."""
    data, options = {"inputs": "a b"}, {"seed": 1}
    answer = manager.infer("text-generation", "ollama", name, data, options, token=token)
    metadata: dict[str, Any] = answer["metadata"]
    return metadata


def shown(manager: InferenceManager) -> dict[str, tuple[str, str, int]]:
    return {
        each["name"]: (each["state"], each["device"], each["size_bytes"])
        for each in manager.get_cached_models()
    }


@pytest.mark.parametrize(("gpu_share", "device"), [(0.0, "cpu"), (0.5, "cpu+gpu"), (1.0, "gpu")])
def test_what_is_warm_and_where_is_what_the_server_says(
    manager: InferenceManager, remote: OllamaTestServer, gpu_share: float, device: str
) -> None:
    remote.gpu_share = gpu_share
    cold, warm = ask(manager, "first"), ask(manager, "first")
    assert (cold["cache_hit"], warm["cache_hit"]) == (False, True)
    assert (cold["device"], warm["device"]) == (device, device)
    assert shown(manager) == {"first": ("ready", device, 7000)}
    assert manager.get_stats()["cache"]["models"] == 0, "it is not in this process"


def test_a_model_that_the_server_has_unloaded_is_not_warm(
    manager: InferenceManager, remote: OllamaTestServer
) -> None:
    ask(manager, "first")
    remote.kill_runner(FIRST.name)
    wait_until(lambda: not shown(manager), 30, "the report follows the server")
    assert ask(manager, "first")["cache_hit"] is False


def test_one_name_is_warm_through_the_other_of_the_same_file(manager: InferenceManager) -> None:
    ask(manager, "first")
    assert ask(manager, "second")["cache_hit"] is True
    assert set(shown(manager)) == {"first", "second"}
    assert ask(manager, "other")["cache_hit"] is False


def test_clearing_one_of_two_names_of_a_file_unloads_nothing(
    manager: InferenceManager, remote: OllamaTestServer
) -> None:
    ask(manager, "first")
    ask(manager, "second")
    assert [key["name"] for key in manager.clear_cache("first")["unloaded"]] == ["first"]
    assert remote.loaded == [FIRST.name]
    assert set(shown(manager)) == {"second"}
    manager.clear_cache("second")
    assert not remote.loaded


def test_a_name_in_use_keeps_its_file_when_the_other_is_cleared(
    manager: InferenceManager, remote: OllamaTestServer
) -> None:
    ask(manager, "first")
    remote.faults["/api/generate"] = Fault(FaultKind.HANG, after=1)
    token = CancelToken()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, manager, "second", token)
        try:
            assert remote.hung.wait(60)
            remote.faults.clear()
            cleared = manager.clear_cache()
            assert [key["name"] for key in cleared["unloaded"]] == ["first"]
            assert [key["name"] for key in cleared["in_use"]] == ["second"]
            assert not [
                body for body in remote.bodies("/api/generate") if body.get("keep_alive") == 0
            ]
        finally:
            token.cancel(CancelledError("by the test"))
        assert isinstance(running.exception(60), CancelledError)


@pytest.mark.parametrize("preloaded", [False, True])
def test_a_model_that_has_priority_stays_in_the_servers_memory(
    manager: InferenceManager,
    registry: StaticRegistry,
    remote: OllamaTestServer,
    preloaded: bool,
) -> None:
    registry.add("first", None, engine=Engine.OLLAMA, ollama_model_name=FIRST.name, priority=True)
    remote.keep_alive_seconds = 0
    if preloaded:
        manager.preload("first", "2")
    else:
        ask(manager, "first")
    assert remote.bodies("/api/generate")[-1]["keep_alive"] == -1
    assert remote.loaded == [FIRST.name]
    assert ask(manager, "first")["cache_hit"] is True


def test_a_report_does_not_wait_for_a_server_that_hangs(
    manager: InferenceManager, remote: OllamaTestServer
) -> None:
    for name in ("first", "second", "other"):
        ask(manager, name)
    wait_until(lambda: len(shown(manager)) == 3, 30, "all are loaded")
    remote.faults["/api/ps"] = Fault(FaultKind.HANG)
    wait_until(
        lambda: {state for state, _, _ in shown(manager).values()} == {"unknown"}, 60, "unknown"
    )
    assert remote.hung.is_set()
    began = time.monotonic()
    shown(manager)
    assert time.monotonic() - began < 10 * REPORT_SECONDS


def test_the_server_is_asked_about_once_a_second(
    manager: InferenceManager, remote: OllamaTestServer
) -> None:
    for name in ("first", "second"):
        ask(manager, name)
    before, began = len(remote.bodies("/api/ps")), time.monotonic()
    barrier = threading.Barrier(8)

    def look(_: int) -> None:
        barrier.wait()
        for _ in range(20):
            shown(manager)
            ask(manager, "first")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
    assert len(remote.bodies("/api/ps")) - before <= time.monotonic() - began + 2
