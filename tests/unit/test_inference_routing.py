"""From a task and an engine to what serves them, and one more attempt when memory runs out."""

# ruff: noqa: ARG002 - the echo takes all that the contracts hand it, and needs little of it

import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    InternalError,
    InvalidInputError,
    OutOfMemoryError,
    UnsupportedTaskError,
)
from shared.settings import Settings
from shared.tasks import Task
from tests.model_stores import DirectoryStore, StaticRegistry
from workers.inference import registry as registry_module
from workers.inference.cache import ModelCache
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.executor import ModelExecutor
from workers.inference.handlers.base import BaseModelHandler
from workers.inference.loader import ModelKey
from workers.inference.manager import InferenceManager
from workers.inference.registry import HandlerRegistry, TaskRouter
from workers.inference.snapshot_disk import SnapshotDisk
from workers.inference.snapshots import Snapshots
from workers.inference.warm import MOST_AFFINITIES, WarmAffinities

#: Only a failing test waits this long.
PATIENCE = 30.0


class EchoEngine(BaseEngine[LoadedModel]):
    """Says what it hears; may run out of memory first."""

    name: ClassVar[str] = "echo"
    supported_tasks: ClassVar[frozenset[Task]] = frozenset({Task.TEXT_GENERATION})
    #: How many of the next inferences find no memory.
    shortages: int = 0
    #: How many jobs its models take at once.
    places: int = 1

    def estimate_bytes(self, source: ModelSource) -> int:
        """Return a size that lets two models in."""
        return 4

    def load_model(self, source: ModelSource) -> LoadedModel:
        """Name the architecture after the model."""
        name, tasks = source.version.name, self.supported_tasks
        return LoadedModel(name, tasks, 4, "nowhere", places=self.places)

    def infer(self, model: LoadedModel, inputs: Any, call: InferenceCall) -> Any:
        """Return the inputs."""
        call.token.check()
        if call.on_token is not None:
            call.on_token(inputs)
        if self.shortages:
            self.shortages -= 1
            raise OutOfMemoryError("no memory left")
        return inputs

    def unload_model(self, model: LoadedModel) -> None:
        """Do nothing."""


class OtherEngine(EchoEngine):
    """Takes the place of a built-in one."""

    name: ClassVar[str] = "ollama"


class EchoHandler(BaseModelHandler[LoadedModel]):
    """Takes anything."""

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Find nothing wrong."""

    def preprocess(self, model: LoadedModel, call: InferenceCall) -> str:
        """Take the text."""
        return str(call.data["inputs"])

    def postprocess(
        self, model: LoadedModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Return the text."""
        return {"generated_text": output}


class LoudHandler(EchoHandler):
    """Made for one architecture."""

    def postprocess(
        self, model: LoadedModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Return the text, louder."""
        return {"generated_text": output.upper()}


class Stack:
    """A manager whose only engine is the echo."""

    def __init__(self, root: Path) -> None:
        self.handlers = handlers = HandlerRegistry()
        handlers.register_engine_manually(EchoEngine)
        handlers.register_engine_manually(OtherEngine)
        handlers.register_handler_manually("text-generation", "ollama", EchoHandler)
        handlers.register_handler_manually("text-generation", "echo", EchoHandler)
        handlers.register_handler_manually("text-generation", "echo:loud", LoudHandler)
        self.registry = StaticRegistry()
        self.router = TaskRouter(handlers, Settings())
        self.cache = ModelCache[ModelKey, LoadedModel](10, 10)
        snapshots = Snapshots(DirectoryStore(root / "store"), SnapshotDisk(root / "snapshots"))
        self.executor = ModelExecutor(self.router, self.cache, snapshots)
        self.manager = InferenceManager(self.registry, self.router, self.executor, self.cache)
        for name in ("quiet", "loud"):
            self.registry.add(name, None, engine="echo")

    @property
    def engine(self) -> EchoEngine:
        """The engine that serves."""
        engine = self.router.engine("echo")
        assert isinstance(engine, EchoEngine)
        return engine

    def ask(self, model: str, **more: Any) -> dict[str, Any]:
        """Send it a word."""
        return self.manager.infer("text-generation", "echo", model, {"inputs": "hello"}, **more)


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def test_an_engine_and_a_handler_of_a_plugin_serve(stack: Stack) -> None:
    result = stack.ask("quiet")
    assert result["generated_text"] == "hello"
    assert result["metadata"]["engine"] == "echo"
    assert result["metadata"]["commit"] is None


def test_a_handler_made_for_the_architecture_comes_first(stack: Stack) -> None:
    assert stack.ask("loud")["generated_text"] == "HELLO"


def test_out_of_memory_evicts_another_model_and_tries_once_more(stack: Stack) -> None:
    stack.ask("loud")
    stack.engine.shortages = 1
    assert stack.ask("quiet")["generated_text"] == "hello"
    assert [model["name"] for model in stack.manager.get_cached_models()] == ["quiet"]
    assert stack.cache.stats()["evictions"]["out_of_memory"] == 1


def test_out_of_memory_twice_is_an_error(stack: Stack) -> None:
    stack.ask("loud")
    stack.engine.shortages = 2
    with pytest.raises(OutOfMemoryError):
        stack.ask("quiet")


def test_out_of_memory_with_nothing_to_evict_is_an_error(stack: Stack) -> None:
    stack.engine.shortages = 1
    with pytest.raises(OutOfMemoryError):
        stack.ask("quiet")
    assert stack.ask("quiet")["metadata"]["cache_hit"]


def test_what_was_streamed_is_not_streamed_again(stack: Stack) -> None:
    stack.ask("loud")
    stack.engine.shortages = 1
    pieces: list[str] = []
    with pytest.raises(OutOfMemoryError):
        stack.ask("quiet", on_token=pieces.append)
    assert pieces == ["hello"]


def test_counters_tell_success_failure_and_cancel_apart(stack: Stack) -> None:
    stack.ask("quiet")
    stack.ask("quiet")
    with pytest.raises(InvalidInputError):
        stack.manager.infer("text-generation", "echo", "quiet", {}, {"unheard": "of"})
    token = CancelToken()
    token.cancel(CancelledError("by the client"))
    with pytest.raises(CancelledError):
        stack.ask("quiet", token=token)
    stats = stack.manager.get_stats()
    assert (stats["succeeded"], stats["failed"], stats["cancelled"]) == (2, 1, 1)
    assert stats["success_rate"] == pytest.approx(2 / 3)
    assert (stats["cache"]["hits"], stats["cache"]["misses"]) == (1, 1)
    assert stats["in_flight"] == 0


def test_a_task_that_the_engine_does_not_do_is_refused(stack: Stack) -> None:
    with pytest.raises(UnsupportedTaskError):
        stack.manager.infer("asr", "echo", "quiet", {})


def test_the_alias_names_the_engine(stack: Stack) -> None:
    with pytest.raises(InvalidInputError, match="runs on echo, not on ollama"):
        stack.manager.infer("text-generation-ollama", "transformers", "quiet", {"inputs": "x"})


def test_entry_points_of_a_package_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("echo", f"{__name__}:EchoEngine", registry_module.ENGINES),
        EntryPoint("text-generation:echo", f"{__name__}:EchoHandler", registry_module.HANDLERS),
        EntryPoint("asr:echo", f"{__name__}:Settings", registry_module.HANDLERS),
    ]
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: [p for p in points if p.group == group]
    )
    handlers = HandlerRegistry()
    assert handlers.engine("echo") is EchoEngine
    assert handlers.handler(Task.TEXT_GENERATION, "echo") is EchoHandler
    assert {"echo", "transformers"} <= set(handlers.engines())
    assert "text-generation:transformers" in handlers.handlers()
    assert handlers.engine("steam") is None
    with pytest.raises(InternalError, match="BaseModelHandler"):
        handlers.handler(Task.ASR, "echo")


def test_the_health_of_an_engine_that_fails_is_an_error_and_hides_no_other(stack: Stack) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("the device is gone")

    stack.engine.health = fail  # type: ignore[method-assign]
    stack.router.engine("ollama")
    health = stack.manager.health_check()
    assert health["status"] == "healthy"
    assert health["router"]["in_use"] == {
        "echo": {"error": "RuntimeError: the device is gone"},
        "ollama": {},
    }


def test_the_health_of_an_engine_that_hangs_is_an_error_until_it_answers(stack: Stack) -> None:
    goes_on, asked = threading.Event(), []

    def hang() -> dict[str, Any]:
        asked.append(threading.current_thread())
        goes_on.wait(PATIENCE)
        return {"device": "nowhere"}

    stack.engine.health = hang  # type: ignore[method-assign]
    for _ in range(2):
        found = stack.manager.health_check()["router"]["in_use"]["echo"]
        assert found["error"].startswith("no answer for")
    assert len(asked) == 1, "a thread for each report would pile up"
    goes_on.set()
    asked[0].join(PATIENCE)
    assert stack.router.health()["in_use"]["echo"] == {"device": "nowhere"}


def test_nobody_waits_for_an_engine_that_starts_but_those_who_need_it(tmp_path: Path) -> None:
    starts, goes_on = threading.Event(), threading.Event()

    class SlowEngine(EchoEngine):
        name: ClassVar[str] = "slow"
        instances: ClassVar[list[object]] = []

        def __init__(self, settings: Settings) -> None:
            super().__init__(settings)
            self.instances.append(self)
            starts.set()
            assert goes_on.wait(PATIENCE)

    stack = Stack(tmp_path)
    stack.handlers.register_engine_manually(SlowEngine)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(stack.router.engine, "slow")
        assert starts.wait(PATIENCE)
        second = threads.submit(stack.router.engine, "slow")
        try:
            assert stack.ask("quiet")["generated_text"] == "hello"
            assert list(stack.manager.health_check()["router"]["in_use"]) == ["echo"]
            assert "echo" in str(stack.manager.get_stats()["models"])
            assert not first.done()
            assert not second.done()
        finally:
            goes_on.set()
        assert first.result(PATIENCE) is second.result(PATIENCE)
    assert len(SlowEngine.instances) == 1


def test_a_device_that_fails_hides_no_worker(stack: Stack) -> None:
    def fail(_: object) -> list[dict[str, Any]]:
        raise RuntimeError("CUDA error: device lost")

    manager = InferenceManager(
        stack.registry, stack.router, stack.executor, stack.cache, report_devices=fail
    )
    [device] = manager.get_stats()["devices"]
    assert device == {"name": "cpu", "in_use": True, "error": "CUDA error: device lost"}


def test_a_remote_engine_that_cannot_say_where_its_model_is_hides_no_worker(stack: Stack) -> None:
    def fail(model: LoadedModel, token: CancelToken | None = None) -> None:
        raise RuntimeError("no such server")

    stack.engine.is_remote = True  # type: ignore[misc]
    stack.ask("quiet")
    stack.engine.whereabouts = fail  # type: ignore[method-assign]
    [model] = stack.manager.get_cached_models()
    assert (model["state"], model["error"]) == ("unknown", "no such server")


def test_a_warm_model_is_known_by_what_requests_called_it(stack: Stack) -> None:
    assert stack.manager.warm_models() == {}
    stack.ask("quiet")
    assert stack.manager.warm_models() == {"quiet@": 1, "quiet@1": 1}
    stack.ask("quiet", stage="production")
    assert set(stack.manager.warm_models()) == {"quiet@", "quiet@1", "quiet@production"}
    assert set(stack.manager.load_seconds()) == set(stack.manager.warm_models())
    stack.manager.clear_cache()
    assert stack.manager.warm_models() == {}
    assert stack.manager.may_load()


def test_a_warm_model_is_not_known_by_a_stage_that_it_has_left(stack: Stack) -> None:
    stack.ask("quiet")
    stack.registry.add("quiet", None, engine="echo")
    stack.ask("quiet")
    stack.manager.clear_cache()
    stack.ask("quiet", version="1")
    assert set(stack.manager.warm_models()) == {"quiet@1"}


def test_a_preloaded_model_is_known_by_the_names_that_stand_for_it(stack: Stack) -> None:
    stack.manager.preload("quiet", "1")
    assert set(stack.manager.warm_models()) == {"quiet@", "quiet@1"}
    stack.registry.add("loud", None, engine="echo")
    stack.manager.preload("loud", "1")
    assert "loud@1" in stack.manager.warm_models()
    assert "loud@" not in stack.manager.warm_models(), "version 2 is asked now"


def test_a_batched_model_takes_several_jobs_at_once(stack: Stack) -> None:
    stack.engine.places = 8
    stack.ask("quiet")
    assert stack.manager.warm_models()["quiet@"] == 8


def test_a_name_learned_for_a_warm_model_is_a_change(stack: Stack) -> None:
    changes: list[set[str]] = []
    stack.manager.on_change(lambda: changes.append(set(stack.manager.warm_models())))
    others: list[None] = []
    stack.manager.on_change(lambda: others.append(None))
    stack.ask("quiet")
    assert changes[-1] == {"quiet@", "quiet@1"}
    assert len(others) == len(changes)
    count = len(changes)
    stack.ask("quiet")
    assert len(changes) == count
    stack.ask("quiet", stage="production")
    assert changes[count:] == [{"quiet@", "quiet@1", "quiet@production"}]


def test_the_names_that_are_remembered_are_bounded(stack: Stack) -> None:
    warm = WarmAffinities(stack.cache)
    stack.ask("quiet")
    version = stack.registry.resolve("quiet")
    for number in range(2 * MOST_AFFINITIES):
        warm.learn(version, f"other-{number}")
    warm.learn(version, "quiet")
    assert len(warm.models()) == MOST_AFFINITIES
    assert "quiet@" in warm.models()


def test_the_package_is_imported_without_torch() -> None:
    modules = "workers.inference, workers.inference.architectures, workers.inference.weights"
    script = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
