"""What Prometheus is told: of the platform, as the ledger knows it, and of this process.

Every front tells the same of the platform, so its series are to be read with ``max``, not ``sum``;
those of HTTP and of the process are each front's own.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

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
    """Calls that this process answered."""

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


class Metrics:
    """All that a scrape shows: the platform's series, and this process' own."""

    def __init__(self, ledger: Ledger, presence: Presence) -> None:
        self._platform, self._process = CollectorRegistry(), CollectorRegistry()
        self._platform.register(PlatformCollector(ledger, presence))
        ProcessCollector(registry=self._process)
        self.http = HttpMetrics(self._process)

    def text(self, *, with_platform: bool) -> bytes:
        """Return the series; without the platform's, as if the ledger could not be asked."""
        platform: Collector = self._platform if with_platform else _Unasked()
        return generate_latest(platform) + generate_latest(self._process)


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
