"""What Prometheus is told of the workers, from what each last said of itself."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shared.ledger import WorkerInfo

#: Of a GPU worker's cache: the name there, the series, what it is.
_CACHE_COUNTERS = (
    ("hits", "lifecycle_cache_hits", "Requests that found their model warm."),
    ("misses", "lifecycle_cache_misses", "Requests that had to wait for a load."),
)
_CACHE_GAUGES = (
    ("models", "lifecycle_cache_models", "Warm models."),
    ("used_bytes", "lifecycle_cache_bytes", "Memory of the warm models."),
    ("max_bytes", "lifecycle_cache_max_bytes", "Memory that warm models may take."),
)


def workers_seen(workers: Sequence[WorkerInfo]) -> Iterator[Metric]:
    """Yield the workers that are alive, and the caches of those that have one."""
    kinds = Counter({"cpu": 0, "gpu": 0})
    kinds.update(worker.kind for worker in workers)
    alive = GaugeMetricFamily("lifecycle_workers", "Workers alive.", labels=["kind"])
    for kind, count in kinds.items():
        alive.add_metric([kind], count)
    yield alive
    labels = ["worker", "kind"]
    busy = GaugeMetricFamily("lifecycle_worker_jobs", "Jobs in flight.", labels=labels)
    consuming = GaugeMetricFamily(
        "lifecycle_worker_consuming",
        "0 for a worker that should take jobs and does not.",
        labels=labels,
    )
    for worker in workers:
        # A worker of another version may say less.
        busy.add_metric([worker.name, worker.kind], worker.status.get("in_flight", 0))
        consuming.add_metric([worker.name, worker.kind], int(worker.fault is None))
    yield busy
    yield consuming
    yield from _caches({worker.name: cache for worker in workers if (cache := _cache(worker))})


def _cache(worker: WorkerInfo) -> dict[str, Any] | None:
    stats = worker.status.get("inference", {}).get("stats", {})
    cache: dict[str, Any] | None = stats.get("cache")
    return cache


def _caches(caches: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    for families, factory in (
        (_CACHE_COUNTERS, CounterMetricFamily),
        (_CACHE_GAUGES, GaugeMetricFamily),
    ):
        for name, series, text in families:
            family = factory(series, text, labels=["worker"])
            for worker, cache in caches.items():
                family.add_metric([worker], cache.get(name, 0))
            yield family
    evictions = CounterMetricFamily(
        "lifecycle_cache_evictions", "Models unloaded, by why.", labels=["worker", "reason"]
    )
    for worker, cache in caches.items():
        for reason, count in cache.get("evictions", {}).items():
            evictions.add_metric([worker, reason], count)
    yield evictions
