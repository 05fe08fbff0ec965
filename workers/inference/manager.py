"""The entry to inference: names in, results out."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from shared.cancellation import CancelToken
from shared.errors import DrainingError, InvalidInputError
from shared.models import ModelVersion
from shared.settings import Settings
from shared.tasks import Engine, Task
from workers.inference.cache import ModelCache
from workers.inference.calls import Emit, InferenceCall, Report, ignore_progress
from workers.inference.engines.base import LoadedModel
from workers.inference.executor import ModelExecutor
from workers.inference.loader import ModelKey
from workers.inference.preload import VersionList, preload_priority_models
from workers.inference.registry import HandlerRegistry, Route, TaskRouter, model_registry
from workers.inference.residents import CachedModel
from workers.inference.snapshot_disk import SnapshotDisk
from workers.inference.snapshot_fetch import SnapshotStore
from workers.inference.snapshots import Snapshots
from workers.inference.stats import InferenceStats
from workers.inference.warm import WarmAffinities


class VersionRegistry(VersionList, Protocol):
    """What inference needs of the model registry."""

    def resolve(
        self,
        name: str,
        version: str | None = None,
        stage: str | None = None,
        *,
        epoch: int | None = None,
    ) -> ModelVersion:
        """Return the version that a name stands for, as of a transition or of the last one."""


#: Says what devices there are, and of this process' own what models take there.
DeviceReport = Callable[[Mapping[str, Mapping[str, int]]], list[dict[str, Any]]]


def no_devices(_: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Report the devices of a process that loads no models."""
    return []


class InferenceManager:
    """Serves requests on warm models; safe to use from several threads."""

    def __init__(
        self,
        registry: VersionRegistry,
        router: TaskRouter,
        executor: ModelExecutor,
        cache: ModelCache[ModelKey, LoadedModel],
        report_devices: DeviceReport = no_devices,
    ) -> None:
        self._registry = registry
        self._router = router
        self._executor = executor
        self._cache = cache
        self._report_devices = report_devices
        self._warm = WarmAffinities(cache)
        self._listeners: list[Callable[[], None]] = []
        cache.on_change = self._tell_change
        self._stats = InferenceStats()
        self._closing = CancelToken()

    def infer(  # noqa: PLR0913 - the fields of a request, and four ways to follow it
        self,
        task: str,
        engine: str,
        model_name: str,
        data: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        *,
        version: str | None = None,
        stage: str | None = None,
        token: CancelToken | None = None,
        on_token: Emit | None = None,
        on_thought: Emit | None = None,
        on_progress: Report | None = None,
        epoch: int | None = None,
    ) -> dict[str, Any]:
        """Return the task's result, with ``metadata`` on how it came to be.

        Stages are as they were after the transition ``epoch``; None: after the last one.
        """
        with self._stats.request():
            route = self._route(task, engine)
            route.handler.validate_input(data)
            call = InferenceCall(
                task=route.task,
                data=dict(data),
                options=route.handler.parse_options(options or {}),
                token=token or CancelToken(),
                on_token=on_token,
                on_thought=on_thought,
                on_progress=on_progress or ignore_progress,
            )
            call.token.check()
            model = self._resolve(route, model_name, version, stage, epoch)
            return self._executor.execute(route, model, call)

    def preload(self, model_name: str, version: str | None = None) -> None:
        """Have a model warm before anybody asks it."""
        found = self._registry.resolve(model_name, version)
        route = self._route(found.task, found.engine)
        default = self._registry.resolve(model_name)
        self._warm.learn(found, model_name, found.version)
        self._warm.learn(default, model_name)
        call = InferenceCall(route.task, {}, route.handler.parse_options({}), self._closing)
        self._executor.preload(route, found, call)

    def warm_models(self) -> dict[str, int]:
        """Return the affinities of jobs that find their model in memory here.

        Each with the number of jobs that the model takes at once. Models that another server holds
        are not among them. Neither this nor the next three wait for a load, an engine or I/O.
        """
        return {
            affinity: warm.model.places if warm.model else 1
            for affinity, warm in self._warm.models().items()
        }

    def load_seconds(self) -> dict[str, float]:
        """Return how long the loads of the warm models took, by affinity; 0 while they load."""
        return {affinity: warm.load_seconds for affinity, warm in self._warm.models().items()}

    def may_load(self) -> bool:
        """Return whether a job whose model is not warm could start now."""
        return self._cache.may_load()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back when another model is warm or pinned than before.

        It is called from the thread that made the change, and must return at once.
        """
        self._listeners.append(callback)

    def health_check(self) -> dict[str, Any]:
        """Return ``status`` and the state of each part."""
        cache = self._cache.stats()
        return {
            "status": "stopped" if self._closing.cancelled else "healthy",
            "manager": {"in_flight": self._stats.summary()["in_flight"]},
            "router": self._router.health(),
            "cache": {name: cache[name] for name in ("models", "used_bytes", "max_bytes")},
        }

    def get_stats(self) -> dict[str, Any]:
        """Return counts since the start, the devices, and the models in memory."""
        cache = self._cache.stats()
        return {
            **self._stats.summary(),
            "devices": self._devices(cache.pop("devices")),
            "cache": cache,
            "models": self.get_cached_models(),
            "handlers": self._router.handlers(),
        }

    def get_cached_models(self) -> list[dict[str, Any]]:
        """Return the models in memory, the least recently used first."""
        shown = map(self._shown, self._cache.models())
        return [model for model in shown if model is not None]

    def clear_cache(self, model_name: str | None = None) -> dict[str, Any]:
        """Unload one model, or all; those in use are left, and named."""
        unloaded, in_use = self._cache.clear(lambda key: model_name in {None, key.name})
        return {
            "unloaded": [asdict(key) for key in unloaded],
            "in_use": [asdict(key) for key in in_use],
        }

    def start_preload(self) -> None:
        """Have the production models that have priority warm, in time, on a thread."""
        engines = self._router.engines()
        work = partial(
            preload_priority_models, self._registry, engines, self.preload, self._closing
        )
        threading.Thread(target=work, name="preload", daemon=True).start()

    def import_engine(self, name: str) -> None:
        """Import what an engine needs now.

        torch and transformers take seconds in which other threads hardly run: a job that ran
        meanwhile would lose its lease.
        """
        self._router.engine(name)

    def start_idle_unload(self, idle_seconds: float) -> None:
        """Unload idle models from now on, on a thread that ends with ``close``."""

        def sweep() -> None:
            while not self._closing.wait(min(idle_seconds / 4, 60.0)):
                self._cache.unload_idle(idle_seconds)

        threading.Thread(target=sweep, name="idle-unload", daemon=True).start()

    def close(self) -> None:
        """Unload every model that is not in use."""
        self._closing.cancel(DrainingError("inference is closed"))
        self.clear_cache()

    def _tell_change(self) -> None:
        for callback in self._listeners:
            callback()

    def _devices(self, used: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
        """Return what the devices are; of a device that fails, that it does."""
        try:
            return self._report_devices(used)
        except Exception as error:  # noqa: BLE001 - a report shows it; no device may prevent one
            return [{"name": name, "in_use": True, "error": str(error)} for name in used]

    def _shown(self, cached: CachedModel[ModelKey]) -> dict[str, Any] | None:
        """Return a model as reports show it; None for one that its server has unloaded."""
        facts = asdict(cached)
        shown = {**facts.pop("key"), **facts}
        model = self._cache.peek(cached.key) if cached.remote else None
        if model is None:
            return shown
        try:
            where = self._router.engine(cached.key.engine).whereabouts(model)
        except Exception as error:  # noqa: BLE001 - a report shows it; no engine may prevent one
            return shown | {"state": "unknown", "error": str(error)}
        if where is None:
            return shown | {"state": "unknown"}
        known = {"size_bytes": where.size_bytes, "device": where.device}
        return shown | known if where.in_memory else None

    def _route(self, task: str, engine: str) -> Route:
        """Find what serves the task; ``text-generation-ollama`` says the engine with it."""
        if task == f"{Task.TEXT_GENERATION}-{Engine.OLLAMA}":
            task, engine = Task.TEXT_GENERATION, Engine.OLLAMA
        return self._router.route(str(task), str(engine))

    def _resolve(
        self, route: Route, name: str, version: str | None, stage: str | None, epoch: int | None
    ) -> ModelVersion:
        """Return the version to ask, which must belong to the route's engine."""
        found = self._registry.resolve(name, version, stage, epoch=epoch)
        if found.engine != route.engine.name:
            raise InvalidInputError(
                f"version {found.version} of {name} runs on {found.engine}, "
                f"not on {route.engine.name}",
                field="engine",
            )
        self._warm.learn(found, name, version, stage)
        return found


def build_manager(
    settings: Settings,
    registry: VersionRegistry,
    store: SnapshotStore,
    *,
    remote_engine: str | None = None,
) -> InferenceManager:
    """Compose a manager that takes versions from ``registry`` and files from ``store``.

    With a remote engine it serves that engine only, and imports no torch.
    """
    inference, storage = settings.inference, settings.storage
    handlers = HandlerRegistry(remote_engine) if remote_engine else model_registry
    router = TaskRouter(handlers, settings)
    budgets: Mapping[str, int] = {"cpu": 0}
    report_devices: DeviceReport = no_devices
    if remote_engine is None:
        from workers.inference import devices  # noqa: PLC0415 - it imports torch

        budgets, report_devices = devices.budgets(inference), devices.report
    cache: ModelCache[ModelKey, LoadedModel] = ModelCache(
        budgets,
        inference.cache_max_models,
        wait_seconds=inference.wait_seconds,
    )
    snapshots = Snapshots(
        store,
        SnapshotDisk(
            storage.snapshots_dir,
            max_bytes=storage.snapshots_max_bytes,
            reserve_bytes=storage.reserve_bytes,
        ),
        concurrent_files=settings.lakefs.concurrent_files,
    )
    executor = ModelExecutor(router, cache, snapshots)
    manager = InferenceManager(registry, router, executor, cache, report_devices)
    manager.start_idle_unload(inference.idle_seconds)
    return manager
