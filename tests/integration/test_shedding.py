"""While a queue is full, inferences are refused without being read; looks at jobs are not."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.shedding import MOMENT_SECONDS, Refusals
from shared.errors import QueueFullError
from shared.ledger import JobEvent, Ledger
from shared.settings import LedgerSettings, MLflowSettings, RedisSettings, Settings
from tests.clock import Clock
from tests.processes import free_port

ASK = {"task": "asr", "model_name": "m", "data": {"inputs": "x"}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, clock: Clock
) -> Iterator[TestClient]:
    """A front whose queues hold one job, with a clock for what it remembers."""
    nobody = MLflowSettings(tracking_uri=f"http://127.0.0.1:{free_port()}")
    ledger = ledger_settings.model_copy(update={"max_queued": 1})
    app = create_app(Settings(redis=redis_settings, ledger=ledger, mlflow=nobody))
    app.state.services.refusals._clock = clock
    with TestClient(app) as client:
        yield client


def test_the_second_refusal_costs_the_ledger_nothing(
    client: TestClient, ledger: Ledger, clock: Clock
) -> None:
    first = client.post("/inference/infer", json=ASK, headers={"Idempotency-Key": "k"}).json()
    answers = [client.post("/inference/infer", json=ASK) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429] * 3
    assert len({answer.text for answer in answers}) == 1
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert ledger.counts().total(JobEvent.REFUSED) == 1

    # What is no new job is answered as ever.
    again = client.post("/inference/infer", json=ASK, headers={"Idempotency-Key": "k"})
    assert again.json()["job_id"] == first["job_id"]
    assert client.get(f"/jobs/{first['job_id']}").status_code == 200

    client.post(f"/jobs/{first['job_id']}/cancel").raise_for_status()
    clock.now += MOMENT_SECONDS
    assert client.post("/inference/infer", json=ASK).status_code == 202


@pytest.fixture
def silent_mlflow() -> Iterator[socket.socket]:
    """Something that takes connections and never says a word, until it is closed."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server


def test_who_looks_does_not_wait_for_an_mlflow_that_hangs(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, silent_mlflow: socket.socket
) -> None:
    mlflow = MLflowSettings(tracking_uri="http://{}:{}".format(*silent_mlflow.getsockname()))
    app = create_app(Settings(redis=redis_settings, ledger=ledger_settings, mlflow=mlflow))
    with TestClient(app) as client, ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(client.post, "/inference/infer", json=ASK) for _ in range(60)]
        taken, _ = silent_mlflow.accept()
        other = client.post("/models/download", json={"model_name": "org/m"})
        assert client.get(f"/jobs/{other.json()['job_id']}").json()["state"] == "queued"
        assert not any(call.done() for call in asked)
        # Cut off, MLflow is away: the workers will see.
        silent_mlflow.close()
        taken.close()
        assert {call.result(60).status_code for call in asked} == {202}


def test_each_caller_has_its_own_moment(clock: Clock) -> None:
    refusals, error = (
        Refusals(clock),
        QueueFullError("full", code="queue_full", retry_after_seconds=1),
    )
    refusals.note("a", error)
    assert (refusals.last("a"), refusals.last("b")) == (error, None)
    clock.now += MOMENT_SECONDS
    assert refusals.last("a") is None


def test_a_request_that_was_too_large_for_what_is_left_says_nothing_of_others(
    clock: Clock,
) -> None:
    refusals = Refusals(clock)
    error = QueueFullError("full", code="request_bytes_full", retry_after_seconds=1)
    refusals.note("a", error)
    assert refusals.last("a") is None
