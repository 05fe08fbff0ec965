"""The series for Prometheus: the platform's, as the ledger knows them, and this API server's own.

Every API server tells the same of the platform, so those series are to be read with ``max``; those
of HTTP and of its processes are each server's own (``sum``). Where ``API_WORKERS`` processes serve
one port, each of them answers for all: prometheus_client keeps their series in shared files.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from api.server import METRICS_DIRECTORY
from api.worker_metrics import workers_seen
from shared.errors import UnavailableError
from shared.jobs import JobKind, JobState
from shared.ledger import RUN_SECONDS_BOUNDS, Counts, JobEvent, Ledger, Presence, RunTimes

#: Up to the longest wait that a client may ask for.
HTTP_SECONDS_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0)

_ENDS = {JobEvent(state.value): state for state in JobState if state.terminal}
_HELP = {
    JobEvent.ACCEPTED: "Jobs written down.",
    JobEvent.REFUSED: "Submits refused because too much waits.",
    JobEvent.REVIVED: "Ended jobs queued again as a client asked.",
    JobEvent.RETRIED: "Runs that failed in a way that may pass; the job was queued again.",
    JobEvent.POSTPONED: "Runs that met a service that did not answer; the job was queued to wait.",
    JobEvent.RETURNED: "Runs given back by a worker that shut down.",
    JobEvent.LOST: "Runs whose worker went silent: lost leases.",
    JobEvent.CRASHED: "Jobs given up because they lost too many workers; they count as failed too.",
    JobEvent.EXPIRED: "Ended jobs forgotten after their retention.",
}


class HttpMetrics:
    """The calls that were answered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "lifecycle_http_request_duration_seconds",
            "From the request to the first byte of its answer; held calls (wait) take long.",
            ["method", "route", "status"],
            buckets=HTTP_SECONDS_BOUNDS,
            registry=registry,
        )
        self.open = Gauge(
            "lifecycle_http_requests_open",
            "Calls not answered to the last byte: those held, and followers of events.",
            registry=registry,
            multiprocess_mode="livesum",
        )


class PlatformCollector(Collector):
    """Asks the ledger at each scrape: three calls of Redis, however many jobs there are."""

    def __init__(self, ledger: Ledger, presence: Presence) -> None:
        self._ledger = ledger
        self._presence = presence

    def collect(self) -> Iterator[Metric]:
        """Yield what is known; without Redis, that it does not answer."""
        try:
            counts, workers = self._ledger.counts(), self._presence.workers()
        except UnavailableError:
            yield _up(0)
            return
        yield _up(1)
        yield from _jobs(counts)
        yield _run_seconds(counts.runs)
        yield from _queues(counts)
        yield _waiting(counts)
        yield from workers_seen(workers)


class ProcessesCollector(Collector):
    """The usual ``process_*`` series, summed over the processes of this API server."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Yield each series once; the time of the start is that of the oldest process."""
        each = (ProcessCollector(pid=partial(int, pid), registry=None) for pid in self._alive())
        for families in zip(*(collector.collect() for collector in each), strict=False):
            values = [family.samples[0].value for family in families]
            name = families[0].samples[0].name
            combine = min if name == "process_start_time_seconds" else sum
            merged = Metric(families[0].name, families[0].documentation, families[0].type)
            merged.add_sample(name, {}, combine(values))
            yield merged

    def _alive(self) -> list[str]:
        forget_dead_processes(self._directory)
        return _processes(self._directory)


def forget_dead_processes(directory: str) -> None:
    """Drop what ended processes have open: what they counted stays."""
    for pid in _processes(directory):
        if not Path("/proc", pid).exists():
            with suppress(FileNotFoundError):  # another process does the same
                mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]


def _processes(directory: str) -> list[str]:
    prefix = "gauge_livesum_"
    return [path.stem.removeprefix(prefix) for path in Path(directory).glob(f"{prefix}*.db")]


class Metrics:
    """All that a scrape shows: the platform's series, and this API server's own."""

    def __init__(self, ledger: Ledger, presence: Presence) -> None:
        self._platform, self._own = CollectorRegistry(), CollectorRegistry()
        self._platform.register(PlatformCollector(ledger, presence))
        if directory := os.environ.get(METRICS_DIRECTORY):
            self._own.register(ProcessesCollector(directory))
            MultiProcessCollector(self._own, directory)  # type: ignore[no-untyped-call]
            self.http = HttpMetrics(CollectorRegistry())
        else:
            ProcessCollector(registry=self._own)
            self.http = HttpMetrics(self._own)

    def text(self, *, with_platform: bool) -> bytes:
        """Return the series; without the platform's, as if the ledger could not be asked."""
        platform: Collector = self._platform if with_platform else _Unasked()
        return generate_latest(platform) + generate_latest(self._own)


class _Unasked(Collector):
    def collect(self) -> Iterator[Metric]:
        yield _up(0)


def _up(value: int) -> Metric:
    return GaugeMetricFamily("lifecycle_up", "Whether the ledger could be asked.", value)


def _jobs(counts: Counts) -> Iterator[Metric]:
    ended = CounterMetricFamily("lifecycle_jobs_ended", "Jobs ended.", labels=["kind", "state"])
    for event, state in _ENDS.items():
        for kind in JobKind:
            ended.add_metric([kind, state], counts.total(event, kind))
    yield ended
    for event, text in _HELP.items():
        family = CounterMetricFamily(f"lifecycle_jobs_{event}", text, labels=["kind"])
        # Each kind from the start: a series that comes with its first event hides it from rate().
        for kind in JobKind:
            family.add_metric([kind], counts.total(event, kind))
        yield family


def _run_seconds(runs: tuple[RunTimes, ...]) -> Metric:
    family = HistogramMetricFamily(
        "lifecycle_run_duration_seconds", "From a claim to what ended the run.", labels=["kind"]
    )
    for run in runs:
        bounds = [*map(str, RUN_SECONDS_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, [*run.within, run.count], strict=True))
        family.add_metric([run.kind], buckets, run.sum_seconds)
    return family


def _queues(counts: Counts) -> Iterator[Metric]:
    depth = GaugeMetricFamily("lifecycle_queue_jobs", "Jobs that wait.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "lifecycle_queue_oldest_seconds", "Age of the oldest job that waits.", labels=["queue"]
    )
    for queue in counts.queues:
        depth.add_metric([queue.queue], queue.queued)
        oldest.add_metric([queue.queue], queue.oldest_seconds or 0)
    yield depth
    yield oldest


def _waiting(counts: Counts) -> Metric:
    family = GaugeMetricFamily(
        "lifecycle_jobs_waiting",
        "Jobs that wait for the end of an outage, by the service that does not answer.",
        labels=["service"],
    )
    for service, jobs in sorted(counts.waiting.items()):
        family.add_metric([service], jobs)
    return family
