"""What the cache counts, and what a log says of a model that comes or goes."""

from collections import Counter
from typing import Any

from workers.inference.residents import Eviction, K, Resident, Residents, T


class CacheCounts:
    """Hits, misses and evictions since the start; the cache calls it with its lock held."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.evictions: Counter[Eviction] = Counter()

    def summary(self, residents: Residents[K, T]) -> dict[str, Any]:
        """Return the counts, the budget, and what of it is used on each device."""
        asked = self.hits + self.misses
        devices = {
            name: {"used_bytes": residents.used_bytes(name), "max_bytes": most}
            for name, most in residents.max_bytes.items()
        }
        return {
            "models": sum(not resident.remote for resident in residents),
            "max_models": residents.max_models,
            "used_bytes": sum(device["used_bytes"] for device in devices.values()),
            "max_bytes": sum(device["max_bytes"] for device in devices.values()),
            "devices": devices,
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": self.hits / asked if asked else 0.0,
            "evictions": {reason.value: self.evictions[reason] for reason in Eviction},
        }


def facts(resident: Resident[K, T]) -> dict[str, Any]:
    """Return what a log says of a model."""
    return {
        "model": str(resident.key),
        "size_bytes": resident.size_bytes,
        "device": resident.device,
    }
