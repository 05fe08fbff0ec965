"""Which affinities of jobs find their model in memory.

A job's affinity names its model as the request did. Which version that is only the registry knows,
so the last answers are remembered.
"""

import threading
from collections import OrderedDict

from shared.models import ModelVersion
from shared.requests import affinity_of
from workers.inference.cache import ModelCache
from workers.inference.engines.base import LoadedModel
from workers.inference.loader import ModelKey
from workers.inference.residents import WarmModel

#: So many are remembered; the least recently used is forgotten first.
MOST_AFFINITIES = 1000


class WarmAffinities:
    """Answers from memory within microseconds; safe to use from several threads."""

    def __init__(self, cache: ModelCache[ModelKey, LoadedModel]) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, ModelKey] = OrderedDict()

    def learn(
        self, found: ModelVersion, name: str, version: str | None = None, stage: str | None = None
    ) -> None:
        """Remember the version that a request was resolved to."""
        key = ModelKey(found.engine, found.name, found.version)
        affinities = {affinity_of(name, version, stage), affinity_of(name, found.version, None)}
        with self._lock:
            is_new = any(self._keys.get(affinity) != key for affinity in affinities)
            for affinity in affinities:
                self._keys[affinity] = key
                self._keys.move_to_end(affinity)
            while len(self._keys) > MOST_AFFINITIES:
                self._keys.popitem(last=False)
        if is_new:
            self._cache.on_change()

    def models(self) -> dict[str, WarmModel[LoadedModel]]:
        """Return the warm models by affinity."""
        warm = self._cache.warm()
        with self._lock:
            return {affinity: warm[key] for affinity, key in self._keys.items() if key in warm}
