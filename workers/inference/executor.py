"""One inference, from the lease of its model to its result."""

from contextlib import AbstractContextManager
from dataclasses import replace
from time import perf_counter
from typing import Any

from shared.errors import OutOfMemoryError, UnsupportedTaskError
from shared.models import ModelVersion
from workers.inference.cache import Lease, ModelCache
from workers.inference.calls import Emit, InferenceCall
from workers.inference.engines.base import LoadedModel
from workers.inference.loader import ModelKey, ModelLoader
from workers.inference.registry import Route, TaskRouter
from workers.inference.residents import Eviction
from workers.inference.snapshots import Snapshots


class ModelExecutor:
    """Acquires the model, then preprocesses, infers and postprocesses; once more without memory."""

    def __init__(
        self, router: TaskRouter, cache: ModelCache[ModelKey, LoadedModel], snapshots: Snapshots
    ) -> None:
        self._router = router
        self._cache = cache
        self._snapshots = snapshots

    def execute(self, route: Route, version: ModelVersion, call: InferenceCall) -> dict[str, Any]:
        """Return the task's result.

        Out of memory, the least recently used idle model makes room for one more attempt; not
        where a part of the answer has been handed out, which would come twice, nor where it is
        another server's memory.
        """
        emitted = False

        def watched_by(listener: Emit | None) -> Emit | None:
            def emit(text: str) -> None:
                nonlocal emitted
                emitted = True
                assert listener is not None  # noqa: S101 - there is no emit without one
                listener(text)

            return emit if listener is not None else None

        watched = replace(
            call,
            on_token=watched_by(call.on_token),
            on_thought=watched_by(call.on_thought),
            pinned=version.has_priority,
        )
        try:
            return self._attempt(route, version, watched)
        except OutOfMemoryError:
            key, is_lost = _key(route, version), emitted or route.engine.is_remote
            if is_lost or not self._cache.evict_least_recent(Eviction.OUT_OF_MEMORY, keep=key):
                raise
        return self._attempt(route, version, watched)

    def preload(self, route: Route, version: ModelVersion, call: InferenceCall) -> None:
        """Have the model warm; none that has priority makes room for it."""
        with self._lease(route, version, call, modest=True) as lease:
            route.engine.warm(lease.model, replace(call, pinned=version.has_priority))

    def _lease(
        self,
        route: Route,
        version: ModelVersion,
        call: InferenceCall,
        *,
        modest: bool = False,
    ) -> AbstractContextManager[Lease[LoadedModel]]:
        return self._cache.lease(
            _key(route, version),
            lambda: ModelLoader(route.engine, version, self._snapshots, call),
            token=call.token,
            pinned=version.has_priority,
            modest=modest,
            remote=route.engine.is_remote,
        )

    def _attempt(self, route: Route, version: ModelVersion, call: InferenceCall) -> dict[str, Any]:
        started = perf_counter()
        with self._lease(route, version, call) as lease:
            model = lease.model
            if call.task not in model.tasks:
                raise UnsupportedTaskError(f"{version.name} cannot do {call.task}", field="task")
            before = route.engine.whereabouts(model, call.token)
            handler = self._router.specialise(route, model.architecture)
            loaded = perf_counter()
            inputs = handler.preprocess(model, call)
            prepared = perf_counter()
            output = route.engine.infer(model, inputs, call)
            inferred = perf_counter()
            result = handler.postprocess(model, call, inputs, output)
            ended = perf_counter()
            after = before
            if before is not None and not before.in_memory:
                after = route.engine.whereabouts(model, call.token)
        return result | {
            "metadata": result.get("metadata", {})
            | {
                "model": version.name,
                "version": version.version,
                "commit": version.location.commit if version.location else None,
                "engine": route.engine.name,
                "device": (after and after.device) or model.device,
                "cache_hit": before.in_memory if before else lease.hit,
                "load_seconds": round(loaded - started, 6),
                "preprocess_seconds": round(prepared - loaded, 6),
                "inference_seconds": round(inferred - prepared, 6),
                "postprocess_seconds": round(ended - inferred, 6),
            }
        }


def _key(route: Route, version: ModelVersion) -> ModelKey:
    return ModelKey(route.engine.name, version.name, version.version)
