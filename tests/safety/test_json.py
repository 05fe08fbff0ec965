"""Odd and huge JSON: refused with a 4xx, or taken and kept; never a defect of ours."""

import json
from collections.abc import Iterator

import httpx2  # the transport of Starlette's client
import pytest
import redis
from fastapi.testclient import TestClient

from api.app import create_app
from shared.ledger import Ledger
from shared.ledger.record import LARGE_REQUEST_BYTES
from shared.requests import InferRequest
from shared.settings import LedgerSettings, MLflowSettings, RedisSettings, Settings
from tests.claims import claim
from tests.processes import free_port


@pytest.fixture(scope="module")
def settings(redis_settings: RedisSettings) -> Settings:
    nobody = f"http://127.0.0.1:{free_port()}"
    ledger = LedgerSettings(prefix="test-json")
    return Settings(redis=redis_settings, ledger=ledger, mlflow=MLflowSettings(tracking_uri=nobody))


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def infer(inputs: str) -> bytes:
    """Return a request for text generation with inputs written as given."""
    request = '{"task": "text-generation", "model_name": "m", "data": {"inputs": '
    return f"{request}{inputs}}}}}".encode("utf-8", "surrogatepass")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def with_field(field: str) -> bytes:
    """Return a request with one field more."""
    return infer('"x"')[:-1] + f", {field}}}".encode()


TAKEN = {
    "nested 50": infer(nested(50)),
    "50,000 keys": infer(json.dumps({f"{n:x}": n for n in range(49_000)})),
    "4,000 digits": infer("1" * 4000),
    "duplicate keys": infer('"x"').replace(b'"task"', b'"task": "asr", "task"', 1),
    "NUL": infer('"a\\u0000b"'),
    "byte order mark": b"\xef\xbb\xbf" + infer('"x"'),
    "UTF-16": infer('"x"').decode().encode("utf-16"),
    "UTF-32": infer('"x"').decode().encode("utf-32"),
}
REFUSED = {
    "nested 100": infer(nested(100)),
    "nested 900": infer(nested(900)),
    "nested 2,000": infer(nested(2000)),
    "nested 1,000,000": infer(nested(1_000_000)),
    "objects nested 600": infer('{"a":' * 600 + "1" + "}" * 600),
    "options nested": with_field(f'"options": {{"a": {nested(900)}}}'),
    "500,000 keys": infer(json.dumps({f"{n:x}": 0 for n in range(500_000)})),
    "10,000 digits": infer("1" * 10_000),
    "beyond floats": infer("1e999999"),
    "NaN": infer("NaN"),
    "Infinity": infer("-Infinity"),
    "lone surrogate": infer('"\\ud800"'),
    "lone surrogate as key": infer('{"\\udfff": 1}'),
    "lone surrogate in bytes": infer('"\ud800"'),
    "lone surrogate in a name": infer('"x"').replace(b'"m"', b'"\\ud800"'),
    "lone surrogate as field": with_field('"\\ud800": 1'),
    "lone surrogate as option": with_field('"options": {"\\ud800": 1}'),
    "not text": b"\xff\xfe\xfd",
    "cut": infer('"x"')[:-1],
    "nothing": b"",
    "null": b"null",
    "array": b"[]",
    "text": b'"x"',
    "two documents": infer('"x"') * 2,
    "NaN seconds": with_field('"timeout_seconds": NaN'),
    "endless seconds": with_field('"timeout_seconds": Infinity'),
    "NaN as option": with_field('"options": {"length_penalty": NaN}'),
}


def sent(client: TestClient, body: bytes) -> httpx2.Response:
    headers = {"Content-Type": "application/json"}
    return client.post("/inference/infer", content=body, headers=headers)


@pytest.mark.parametrize("name", TAKEN)
def test_odd_json_that_is_taken_can_be_read_by_all(
    name: str, client: TestClient, settings: Settings, redis_client: "redis.Redis"
) -> None:
    answer = sent(client, TAKEN[name])
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    job = claim(Ledger(redis_client, settings.ledger), job_id, "gpu@test")
    assert job is not None
    assert InferRequest.model_validate(job.request).task == "text-generation"
    shown = client.get(f"/jobs/{job_id}").json()["request"]
    if len(TAKEN[name]) > LARGE_REQUEST_BYTES:
        assert shown.items() < job.request.items()
    else:
        assert shown == job.request
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 202


@pytest.mark.parametrize("name", REFUSED)
def test_json_that_some_could_not_read_is_refused(name: str, client: TestClient) -> None:
    answer = sent(client, REFUSED[name])
    assert answer.status_code in {400, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 2000, "the answer repeats what was sent"


def test_number_of_parameters_is_finite(client: TestClient) -> None:
    body = b'{"local_model_name": "m", "model_params": 1e999}'
    headers = {"Content-Type": "application/json"}
    answer = client.post("/models/register_ollama", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "model_params"
