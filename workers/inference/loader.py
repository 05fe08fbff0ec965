"""How one version of a model gets into the cache: its snapshot first, then the engine's load."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shared.errors import InternalError
from shared.models import ModelVersion
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.snapshots import Snapshot, Snapshots

X = TypeVar("X")


@dataclass(frozen=True)
class ModelKey:
    """What the cache knows a model by."""

    engine: str
    name: str
    version: str

    def __str__(self) -> str:
        """Return it as logs show it."""
        return f"{self.name}/{self.version} on {self.engine}"


class ModelLoader:
    """One load, held by the cache for as long as the model is in memory."""

    def __init__(
        self,
        engine: BaseEngine[Any],
        version: ModelVersion,
        snapshots: Snapshots,
        call: InferenceCall,
    ) -> None:
        self._engine = engine
        self._version = version
        self._snapshots = snapshots
        #: The request that asked first; let go when the model is there.
        self._call: InferenceCall | None = call
        self._snapshot: Snapshot | None = None
        self._source: ModelSource | None = None
        self._model: LoadedModel | None = None

    def estimate_bytes(self) -> int:
        """Fetch the model's files, have the engine judge them, and return what it estimates."""
        call = _present(self._call)
        if (location := self._version.location) is not None:
            self._snapshot = self._snapshots.acquire(location, call.token, call.on_progress)
        directory = self._snapshot.directory if self._snapshot else None
        self._source = ModelSource(self._version, call.task, directory)
        self._engine.check_model(self._source)
        return self._engine.estimate_bytes(self._source)

    def load(self, device: str) -> LoadedModel:
        """Have the engine load it."""
        _present(self._call).token.check()
        source = replace(_present(self._source), device=device)
        self._model = self._engine.load_model(source)
        self._call = None
        return self._model

    def measure_bytes(self) -> int:
        """Return what the engine measured."""
        return _present(self._model).size_bytes

    def unload(self) -> None:
        """Free the model, then let its snapshot go."""
        model, self._model, self._call = self._model, None, None
        snapshot, self._snapshot = self._snapshot, None
        try:
            if model is not None:
                self._engine.unload_model(model)
        finally:
            if snapshot is not None:
                snapshot.close()


def _present(value: X | None) -> X:
    """Return what an earlier step of the load has left."""
    if value is None:
        raise InternalError("the steps of a load were called out of order")
    return value
