"""From a request's id to its job's: in the answer, and in the log of the front."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient
from structlog.testing import LogCapture

from api.app import create_app
from shared.settings import LedgerSettings, RedisSettings, Settings


@pytest.fixture
def client(redis_settings: RedisSettings, ledger_settings: LedgerSettings) -> Iterator[TestClient]:
    app = create_app(Settings(redis=redis_settings, ledger=ledger_settings))
    app.add_api_route("/defect", _defect)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _defect() -> None:
    raise RuntimeError("a defect")


@pytest.fixture
def calls() -> Iterator[list[Any]]:
    """The log's lines of calls."""
    capture = LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.reset_defaults()


def test_submit_logs_the_request_with_its_job(client: TestClient, calls: list[Any]) -> None:
    response = client.post(
        "/models/download", json={"model_name": "a/b"}, headers={"X-Request-ID": "proxy-1.2_3"}
    )
    assert response.headers["x-request-id"] == "proxy-1.2_3"
    job_id = response.json()["job_id"]
    client.get(f"/jobs/{job_id}")
    submit, look = (line for line in calls if line["event"] == "call")
    assert submit["request_id"] == "proxy-1.2_3"
    assert submit["job_id"] == look["job_id"] == job_id
    assert (submit["method"], submit["route"], submit["status"]) == (
        "POST",
        "/models/download",
        202,
    )
    assert submit["ms"] > 0
    assert look["request_id"] != submit["request_id"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'forged", "level": "error'])
def test_odd_request_id_is_replaced(client: TestClient, given: str) -> None:
    answered = client.get("/jobs", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert answered
    assert answered != given


def test_job_of_one_call_is_not_logged_with_the_next(client: TestClient, calls: list[Any]) -> None:
    client.post("/models/download", json={"model_name": "a/b"})
    client.get("/jobs")
    lines = [line for line in calls if line["event"] == "call"]
    assert "job_id" in lines[0]
    assert "job_id" not in lines[1]


def test_defect_answers_with_the_id_that_it_is_logged_under(
    client: TestClient, calls: list[Any]
) -> None:
    response = client.get("/defect", headers={"X-Request-ID": "mine"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "mine")
    assert [(line["request_id"], line["status"]) for line in calls] == [("mine", 500)]


def test_health_checks_are_not_logged(client: TestClient, calls: list[Any]) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert client.get(path).status_code == 200
    assert calls == []
