"""Metrics: what a job's way moves, what workers say, and what a scrape costs."""

import uuid
from collections.abc import Iterator

import pytest
import redis
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from api.app import create_app
from shared.errors import ErrorInfo, UnavailableError
from shared.identity.store import KeyStore
from shared.jobs import JobKind, JobState
from shared.ledger import Ledger, NewJob, Presence, WorkerInfo
from shared.settings import ApiSettings, LedgerSettings, RedisSettings, Settings
from tests.claims import claim
from tests.processes import free_port

DOWNLOAD = {"model_name": "org/model"}
CACHE = {"hits": 3, "misses": 2, "models": 1, "used_bytes": 512, "max_bytes": 1024}
GPU = {
    "in_flight": 2,
    "inference": {"stats": {"cache": {**CACHE, "evictions": {"idle": 4, "bytes": 0}}}},
}

#: A series' name and labels, and its value.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def ledger_settings() -> LedgerSettings:
    """Settings of a ledger whose workers are not forgotten within a test."""
    return LedgerSettings(prefix=f"test-{uuid.uuid4().hex}")


@pytest.fixture
def client(redis_settings: RedisSettings, ledger_settings: LedgerSettings) -> Iterator[TestClient]:
    app = create_app(Settings(redis=redis_settings, ledger=ledger_settings))
    with TestClient(app) as client:
        yield client


@pytest.fixture
def presence(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Presence:
    return Presence(redis_client, ledger_settings)


def scrape(client: TestClient) -> Samples:
    """Return every sample, as Prometheus' own parser reads them."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return what ``scrape`` knows a series by."""
    return name, frozenset(labels.items())


def test_job_moves_the_series_of_its_kind(client: TestClient, ledger: Ledger) -> None:
    before = scrape(client)
    accepted = key("lifecycle_jobs_accepted_total", kind="download")
    assert before[accepted] == 0, "a series is there before its first event"
    done, failed = (client.post("/models/download", json=DOWNLOAD).json() for _ in range(2))
    waiting = scrape(client)
    assert waiting[accepted] == 2
    assert waiting[key("lifecycle_queue_jobs", queue="downloads")] == 2
    assert waiting[key("lifecycle_queue_oldest_seconds", queue="downloads")] >= 0

    for submitted, error in ((done, None), (failed, ErrorInfo(code="x", detail="y"))):
        job = claim(ledger, submitted["job_id"], "cpu@a")
        assert ledger.requeue(job)
        job = claim(ledger, job.id, "cpu@a")
        state = JobState.FAILED if error else JobState.SUCCEEDED
        assert ledger.finish(job, state, error=error)

    after = scrape(client)
    assert after[key("lifecycle_jobs_ended_total", kind="download", state="succeeded")] == 1
    assert after[key("lifecycle_jobs_ended_total", kind="download", state="failed")] == 1
    assert after[key("lifecycle_jobs_retried_total", kind="download")] == 2
    assert after[key("lifecycle_queue_jobs", queue="downloads")] == 0
    assert after[key("lifecycle_run_duration_seconds_count", kind="download")] == 4
    assert after[key("lifecycle_run_duration_seconds_bucket", kind="download", le="+Inf")] == 4
    moved = {
        series[0] for series, value in after.items() if series in before and value != before[series]
    }
    assert {name for name in moved if name.startswith("lifecycle_jobs")} == {
        "lifecycle_jobs_accepted_total",
        "lifecycle_jobs_ended_total",
        "lifecycle_jobs_retried_total",
    }


def test_workers_say_what_they_have(client: TestClient, presence: Presence) -> None:
    assert scrape(client)[key("lifecycle_workers", kind="gpu")] == 0
    presence.announce(WorkerInfo("gpu@a", "gpu", "a", GPU))
    presence.announce(WorkerInfo("cpu@a", "cpu", "a", {"in_flight": 0, "consuming": False}))
    seen = scrape(client)
    assert seen[key("lifecycle_workers", kind="gpu")] == 1
    assert seen[key("lifecycle_worker_jobs", worker="gpu@a", kind="gpu")] == 2
    assert seen[key("lifecycle_worker_consuming", worker="gpu@a", kind="gpu")] == 1
    assert seen[key("lifecycle_worker_consuming", worker="cpu@a", kind="cpu")] == 0
    assert seen[key("lifecycle_cache_hits_total", worker="gpu@a")] == 3
    assert seen[key("lifecycle_cache_misses_total", worker="gpu@a")] == 2
    assert seen[key("lifecycle_cache_bytes", worker="gpu@a")] == 512
    assert seen[key("lifecycle_cache_models", worker="gpu@a")] == 1
    assert seen[key("lifecycle_cache_evictions_total", worker="gpu@a", reason="idle")] == 4
    presence.leave("gpu@a")
    assert scrape(client)[key("lifecycle_workers", kind="gpu")] == 0


def test_calls_are_counted_by_template_and_class(client: TestClient) -> None:
    for path in ("/jobs/a", "/jobs/b", "/nowhere", "/other/nowhere"):
        client.get(path)
    client.request("BREW", "/jobs")
    seen = scrape(client)
    count = "lifecycle_http_request_duration_seconds_count"
    assert seen[key(count, method="GET", route="/jobs/{job_id}", status="4xx")] == 2
    assert seen[key(count, method="GET", route="unknown", status="4xx")] == 2
    assert seen[key(count, method="other", route="/jobs", status="4xx")] == 1
    # The scrape itself is open while it is written.
    assert seen[key("lifecycle_http_requests_open")] == 1


def test_what_is_refused_before_the_routes_counts_for_its_route(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> None:
    admin_key = uuid.uuid4().hex
    api = ApiSettings(admin_key=SecretStr(admin_key))
    settings = Settings(redis=redis_settings, ledger=ledger_settings, api=api)
    with TestClient(create_app(settings)) as client:
        assert client.get("/jobs/a").status_code == 401
        client.headers["X-API-Key"] = admin_key
        seen = scrape(client)
    labels = {"method": "GET", "route": "/jobs/{job_id}", "status": "4xx"}
    assert seen[key("lifecycle_http_request_duration_seconds_count", **labels)] == 1


def test_followed_job_is_one_call_that_was_quick_to_begin(
    client: TestClient, ledger: Ledger
) -> None:
    job = claim(ledger, client.post("/models/download", json=DOWNLOAD).json()["job_id"], "cpu@a")
    ledger.finish(job, JobState.SUCCEEDED, result={})
    assert "event: done" in client.get(f"/jobs/{job.id}/events").text
    route = {"method": "GET", "route": "/jobs/{job_id}/events", "status": "2xx"}
    assert scrape(client)[key("lifecycle_http_request_duration_seconds_count", **route)] == 1


def test_scrape_costs_the_same_for_many_jobs(
    client: TestClient, ledger: Ledger, presence: Presence, redis_client: "redis.Redis"
) -> None:
    def calls_of_a_scrape() -> dict[str, int]:
        before = _calls(redis_client)
        scrape(client)
        return {
            name: calls - before.get(name, 0)
            for name, calls in _calls(redis_client).items()
            # EXISTS is the guard's, once in seconds.
            if calls != before.get(name, 0) and name not in {"info", "ping", "exists"}
        }

    presence.announce(WorkerInfo("gpu@a", "gpu", "a", GPU))
    ledger.accept(NewJob(JobKind.INFER, {}, queue="inference", model="m", max_attempts=1))
    scrape(client)  # connects, and loads the script
    few = calls_of_a_scrape()
    for _ in range(300):
        ledger.accept(NewJob(JobKind.INFER, {}, queue="inference", model="m", max_attempts=1))
    assert calls_of_a_scrape() == few
    assert few["evalsha"] == few["smembers"] - 1 == few["mget"] == 1  # one SMEMBERS is the script's


def _calls(client: "redis.Redis") -> dict[str, int]:
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


@pytest.mark.parametrize("keys", [False, True])
def test_without_redis_the_process_still_tells_of_itself(
    ledger_settings: LedgerSettings, keys: bool
) -> None:
    settings = Settings(
        redis=RedisSettings.model_validate({"url": f"redis://127.0.0.1:{free_port()}/0"}),
        ledger=ledger_settings,
        api=ApiSettings(require_keys=keys),
    )
    shown = {"Authorization": f"Bearer lc_{'0' * 12}_{'0' * 64}"} if keys else {}
    with TestClient(create_app(settings), headers=shown) as client:
        assert client.get("/health/ready").status_code == 503
        seen = scrape(client)
    assert seen[key("lifecycle_up")] == 0
    ready = {"method": "GET", "route": "/health/ready", "status": "5xx"}
    assert seen[key("lifecycle_http_request_duration_seconds_count", **ready)] == 1
    assert seen[key("process_resident_memory_bytes")] > 0
    assert not [name for name, _ in seen if name.startswith("lifecycle_jobs")]


def test_scraper_whose_key_cannot_be_checked_learns_nothing_of_the_platform(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("Redis does not answer")

    monkeypatch.setattr(KeyStore, "find", away)
    settings = Settings(
        redis=redis_settings, ledger=ledger_settings, api=ApiSettings(require_keys=True)
    )
    key_text = f"lc_{'0' * 12}_{'0' * 64}"
    with TestClient(create_app(settings), headers={"X-API-Key": key_text}) as client:
        assert client.get("/models/stats").status_code == 503
        names = {name for name, _ in scrape(client) if name.startswith("lifecycle")}
    assert {name for name in names if "_http_" not in name} == {"lifecycle_up"}
