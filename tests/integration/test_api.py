"""The front on a real ledger, without workers: what it accepts, what it refuses, what it says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.routes import lifecycle
from api.waiting import preferred_seconds
from shared.errors import ErrorInfo, NoServableVersionError
from shared.jobs import JobState, Progress
from shared.ledger import AsyncLedger, Ledger
from shared.registry import ModelRegistry
from shared.settings import LedgerSettings, MLflowSettings, RedisSettings, Settings
from tests.claims import claim
from tests.processes import free_port

DOWNLOAD = {"model_name": "org/model"}
OLLAMA_DOWNLOAD = {"model_source": "ollama", "model_name": "qwen3:0.6b"}
INFER = {"task": "text-generation", "model_name": "m", "data": {"inputs": "x"}}


@pytest.fixture
def settings(redis_settings: RedisSettings, ledger_settings: LedgerSettings) -> Settings:
    nobody = f"http://127.0.0.1:{free_port()}"
    return Settings(
        redis=redis_settings, ledger=ledger_settings, mlflow=MLflowSettings(tracking_uri=nobody)
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


def submit(client: TestClient, **headers: str) -> dict[str, Any]:
    response = client.post("/models/download", json=DOWNLOAD, headers=headers)
    assert response.status_code == 202, response.text
    return dict(response.json())


def test_submit_answers_202_with_the_job_and_its_place(client: TestClient) -> None:
    response = client.post("/models/download", json=DOWNLOAD)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{job['job_id']}" == job["links"]["self"]
    assert (job["kind"], job["state"], job["queue"]) == ("download", "queued", "downloads")
    assert job["request"] == {"model_source": "huggingface", "model_name": "org/model"}
    assert "success" not in job, "the fields of a synchronous answer belong to infer jobs"
    assert client.get(job["links"]["self"]).json() == job


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("download", DOWNLOAD),
        ("upload_to_lakefs", {"repo_name": "repo", "local_model_name": "m"}),
        ("register_ollama", {"local_model_name": "m:1b"}),
    ],
)
def test_a_lifecycle_job_may_be_given_a_deadline(
    client: TestClient, ledger: Ledger, call: str, body: dict[str, Any]
) -> None:
    def submitted(**changes: Any) -> Any:
        return client.post(f"/models/{call}", json=body | changes).json()

    assert ledger.get(submitted()["job_id"]).deadline is None
    job = ledger.get(submitted(timeout_seconds=60)["job_id"])
    assert job.deadline is not None
    assert (job.deadline - job.created_at).total_seconds() == 60
    assert submitted(timeout_seconds=0)["errors"][0]["field"] == "timeout_seconds"


def test_same_idempotency_key_gives_the_same_job(client: TestClient) -> None:
    first = submit(client, **{"Idempotency-Key": "k"})
    assert submit(client, **{"Idempotency-Key": "k"})["job_id"] == first["job_id"]
    other = client.post(
        "/models/download", json={"model_name": "other"}, headers={"Idempotency-Key": "k"}
    )
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["code"] == "idempotency_conflict"


def _refuse(*_: object) -> None:
    raise NoServableVersionError("archived")


def test_a_call_that_is_repeated_gives_its_job_also_where_it_would_be_refused_now(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = DOWNLOAD | {"task": "asr", "registered_name": "m"}
    registered = {
        "registered_name": "m",
        "task": "asr",
        "lakefs_repo": "smollm",
        "commit_id": "a" * 64,
    }
    calls: dict[str, dict[str, Any]] = {
        "/inference/infer": INFER,
        "/models/import": imported,
        "/models/register_from_lakefs": registered,
    }
    first = {
        path: client.post(path, json=body, headers={"Idempotency-Key": path}).json()["job_id"]
        for path, body in calls.items()
    }
    monkeypatch.setattr(ModelRegistry, "resolve", _refuse)
    monkeypatch.setattr(lifecycle, "check_served", _refuse)
    for path, body in calls.items():
        key = {"Idempotency-Key": path}
        again = client.post(path, json=body, headers=key)
        assert (again.status_code, again.json()["job_id"]) == (202, first[path])
        other = client.post(path, json=body | {"start_within_seconds": 9}, headers=key)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
        for headers in ({}, {"Idempotency-Key": "fresh"}):
            refused = client.post(path, json=body, headers=headers)
            assert refused.json()["code"] == "no_servable_version"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/models/download", {}, "model_name"),
        ("/models/download", {"model_name": "a/b/c"}, "model_name"),
        ("/models/download", {"model_name": "../etc"}, "model_name"),
        ("/models/download", DOWNLOAD | {"model_source": "ftp"}, "model_source"),
        ("/models/download", DOWNLOAD | {"token": "secret"}, "token"),
        ("/models/download", OLLAMA_DOWNLOAD | {"revision": "main"}, "revision"),
        ("/models/download", OLLAMA_DOWNLOAD | {"allow_patterns": ["*.gguf"]}, "allow_patterns"),
        ("/models/download", DOWNLOAD | {"timeout_seconds": 5e-324}, "timeout_seconds"),
        ("/models/download", DOWNLOAD | {"timeout_seconds": 86401}, "timeout_seconds"),
        (
            "/models/batch_download",
            {"downloads": [DOWNLOAD, OLLAMA_DOWNLOAD | {"timeout_seconds": 86401}]},
            "downloads.1.timeout_seconds",
        ),
        ("/inference/infer", INFER | {"timeout_seconds": 86401}, "timeout_seconds"),
        ("/inference/infer", INFER | {"stream": "yes"}, "stream"),
        ("/inference/infer", INFER | {"priority": "5"}, "priority"),
        ("/models/batch_download", {"downloads": []}, "downloads"),
        ("/models/batch_download", {"downloads": [{}]}, "downloads.0.model_name"),
        ("/models/upload_to_lakefs", {"repo_name": "A_", "local_model_name": "m"}, "repo_name"),
        (
            "/models/upload_to_lakefs",
            {"repo_name": "repo", "local_model_name": "../../etc"},
            "local_model_name",
        ),
        ("/models/import", DOWNLOAD | {"task": "asr"}, "registered_name"),
        (
            "/models/import",
            DOWNLOAD | {"task": "telepathy", "registered_name": "m"},
            "task",
        ),
        (
            "/models/import",
            DOWNLOAD
            | {"task": "asr", "registered_name": "m"}
            | {"smoke_test": {"data": {}, "options": {"warmth": 1}}},
            "smoke_test.options.warmth",
        ),
        ("/models/rollback_stage", {"model_name": "m", "stage": "archived"}, "stage"),
        ("/models/transition_stage", {"model_name": "m", "version": "1", "stage": "gold"}, "stage"),
        ("/inference/infer", INFER | {"task": "telepathy"}, "task"),
        ("/inference/infer", INFER | {"engine": "steam"}, "engine"),
        ("/inference/infer", INFER | {"options": {"warmth": 1}}, "options.warmth"),
        ("/inference/infer", INFER | {"options": {"top_p": 2}}, "options.top_p"),
        (
            "/inference/infer",
            INFER | {"task": "text-generation-ollama", "options": {"num_thread": 1}},
            "options.num_thread",
        ),
    ],
)
def test_wrong_field_is_named(
    client: TestClient, path: str, body: dict[str, Any], field: str
) -> None:
    response = client.post(path, json=body)
    problem = response.json()
    assert (response.status_code, problem["status"]) == (422, 422)
    assert field in [line["field"] for line in problem["errors"]]
    assert "Value error" not in problem["detail"], "pydantic's words"


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b"[]", b"", b'{"a": NaN}'])
def test_the_direct_way_of_inferences_answers_bad_bodies_as_the_other_routes_do(
    client: TestClient, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    answers = [
        client.post(path, content=body, headers=headers)
        for path in ("/inference/infer", "/models/register_from_lakefs")
    ]
    assert answers[0].status_code == answers[1].status_code
    assert 400 <= answers[0].status_code < 500
    assert answers[0].json()["code"] == answers[1].json()["code"]


@pytest.mark.parametrize("query", ["wait=-1", "wait=121", "wait=soon", "wait=nan"])
def test_a_wait_that_cannot_be_is_refused(client: TestClient, query: str) -> None:
    for path, body in (("/inference/infer", INFER), ("/models/download", DOWNLOAD)):
        answer = client.post(f"{path}?{query}", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "wait")
    assert client.post("/inference/infer?other=1", json=INFER).status_code == 202


@pytest.mark.parametrize("path", ["", "/events"])
def test_unknown_job_is_404(client: TestClient, path: str) -> None:
    response = client.get(f"/jobs/no-such-job{path}")
    assert response.status_code == 404
    assert "no-such-job" in response.json()["detail"]


def test_unknown_path_and_method_are_problems_too(client: TestClient) -> None:
    for response in (client.get("/nowhere"), client.delete("/jobs")):
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code


@pytest.mark.parametrize(
    ("path", "allowed"), [("/jobs", "GET"), ("/files/any", "DELETE, GET"), ("/files", "POST")]
)
def test_wrong_method_is_told_all_that_are_right(
    client: TestClient, path: str, allowed: str
) -> None:
    response = client.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_openapi_knows_one_shape_of_a_failed_call(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    shapes = {
        json.dumps(answer["content"])
        for methods in document["paths"].values()
        for call in methods.values()
        for status, answer in call["responses"].items()
        if int(status) >= 400
    }
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    assert shapes == {json.dumps({"application/problem+json": problem})}
    assert "Problem" in document["components"]["schemas"]


@pytest.mark.parametrize("declared", [True, False])
def test_body_that_is_too_large_is_413(client: TestClient, declared: bool) -> None:
    body = json.dumps(INFER | {"data": {"inputs": "x" * 9_000_000}}).encode()
    headers = {"Content-Type": "application/json"}
    content = body if declared else iter([body[:5_000_000], body[5_000_000:]])
    response = client.post("/inference/infer", content=content, headers=headers)
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_batch_joins_duplicates_under_one_parent(client: TestClient) -> None:
    items = [{"model_name": name} for name in ("a", "b", "a")]
    parent = client.post("/models/batch_download", json={"downloads": items}).json()
    assert (parent["kind"], parent["state"], len(parent["children"])) == (
        "batch_download",
        "running",
        2,
    )
    children = client.get("/jobs", params={"parent_id": parent["job_id"]}).json()["jobs"]
    assert sorted(child["request"]["model_name"] for child in children) == ["a", "b"]


def test_a_list_leaves_out_a_long_request_and_names_the_model(client: TestClient) -> None:
    infer = INFER | {"data": {"inputs": "x" * 5000}}
    job_id = client.post("/inference/infer", json=infer).json()["job_id"]
    (listed,) = client.get("/jobs").json()["jobs"]
    assert (listed["job_id"], listed["request"], listed["model"]) == (job_id, {}, "m")
    assert client.get(f"/jobs/{job_id}").json()["request"]["data"] == infer["data"]


def test_cancel_and_retry_follow_the_state(client: TestClient) -> None:
    job = submit(client)
    path = job["links"]["self"]
    assert client.post(f"{path}/retry").status_code == 409
    assert client.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert client.post(f"{path}/cancel").status_code == 409
    assert client.post(f"{path}/retry").json()["state"] == "queued"


def test_a_cancel_or_retry_whose_answer_was_lost_is_sent_again(client: TestClient) -> None:
    path = submit(client)["links"]["self"]
    for call, state in (("cancel", "cancelled"), ("retry", "queued")):
        for _ in range(2):
            answer = client.post(f"{path}/{call}", headers={"Idempotency-Key": "mine"})
            assert (answer.status_code, answer.json()["state"]) == (202, state)
    assert client.post(f"{path}/retry", headers={"Idempotency-Key": "new"}).status_code == 409


def test_wait_holds_the_answer_for_a_while(client: TestClient) -> None:
    response = client.post("/models/download", json=DOWNLOAD, headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert response.json()["state"] == "queued"


@pytest.mark.parametrize(
    "wait",
    [
        {"params": {"wait": 10}},
        {"headers": {"Prefer": "wait=10"}},
        {"headers": {"Prefer": "respond-async, WAIT = 10; note=x"}},
    ],
)
def test_wait_answers_with_the_end(
    client: TestClient, ledger: Ledger, wait: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": "k"}
    job = claim(ledger, submit(client, **key)["job_id"], "cpu@a")
    ledger.finish(job, JobState.SUCCEEDED, result={"files": 3})
    wait["headers"] = wait.get("headers", {}) | key
    response = client.post("/models/download", json=DOWNLOAD, **wait)
    assert (response.status_code, response.json()["result"]) == (200, {"files": 3})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["wait=10"], 10),
        (["Wait=10"], 10),
        (['wait="10"'], 10),
        (["respond-async", "wait = 10 ; x=y"], 10),
        (["wait=10, wait=20"], 10),
        (["wait=9999999"], 120),
        (['foo="a, wait=10"'], 0),
        (["foo; wait=10"], 0),
        (["wait=soon"], 0),
        (["waits=10", "x-wait=10"], 0),
        (['"'], 0),
        ([], 0),
    ],
)
def test_a_preferred_wait_is_read_as_rfc_7240_says(headers: list[str], seconds: float) -> None:
    assert preferred_seconds(headers) == seconds


def test_failed_job_answers_a_wait_with_its_problem(client: TestClient, ledger: Ledger) -> None:
    key = {"Idempotency-Key": "k"}
    job = claim(ledger, submit(client, **key)["job_id"], "cpu@a")
    error = ErrorInfo(code="model_not_found", category="not_found", detail="no model org/model")
    ledger.finish(job, JobState.FAILED, error=error)
    response = client.post("/models/download?wait=5", json=DOWNLOAD, headers=key)
    assert response.status_code == 404
    assert response.json()["job_id"] == job.id
    assert client.get(f"/jobs/{job.id}?wait=5").json()["error"]["code"] == "model_not_found"


def test_events_replay_and_go_on_from_the_last_one(client: TestClient, ledger: Ledger) -> None:
    job_id = submit(client)["job_id"]
    ledger.follow(job_id)
    job = claim(ledger, job_id)
    ledger.report_progress(job, Progress(completed=1, total=2))
    ledger.report_text(job, 1, "Grüße")
    ledger.finish(job, JobState.SUCCEEDED, result={})
    events = _events(client, job.id)
    assert [name for _, name, _ in events] == [
        "state",
        "state",
        "progress",
        "token",
        "state",
        "done",
    ]
    assert events[3][2] == {"text": "Grüße"}
    assert _events(client, job.id, after=events[3][0]) == events[4:]
    assert _events(client, job.id, after=f"0-{'9' * 19}") == events
    too_long = client.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": f"0-{'9' * 20}"})
    assert too_long.status_code == 422


def test_a_job_that_nobody_followed_has_the_events_of_now(
    client: TestClient, ledger: Ledger
) -> None:
    job = claim(ledger, submit(client)["job_id"])
    ledger.report_progress(job, Progress(completed=1, total=2))
    ledger.finish(job, JobState.SUCCEEDED, result={})
    assert [name for _, name, _ in _events(client, job.id)] == ["state", "progress", "done"]


def test_a_reconnect_behind_the_last_event_of_an_ended_job_is_a_204(
    client: TestClient, ledger: Ledger
) -> None:
    job = claim(ledger, submit(client)["job_id"], "gpu@a")
    ledger.finish(job, JobState.FAILED, error=ErrorInfo(code="internal_error", detail="x"))
    *_, (done, _, _) = _events(client, job.id)
    later = f"{int(done.partition('-')[0]) + 1}-0"
    for after in (done, later):
        answer = client.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": after})
        assert (answer.status_code, answer.content) == (204, b"")

    # Retried, it has events to come.
    client.post(f"/jobs/{job.id}/retry").raise_for_status()
    client.post(f"/jobs/{job.id}/cancel").raise_for_status()
    assert _events(client, job.id, done)[-1][1] == "done"


def test_events_are_all_sent_where_the_job_ends_just_before_it_is_looked_at(
    client: TestClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claim(ledger, submit(client)["job_id"], "gpu@a")
    look = AsyncLedger.ended

    async def end_and_look(self: AsyncLedger, job_id: str) -> bool:
        assert ledger.report_text(job, 1, "late")
        assert ledger.finish(job, JobState.SUCCEEDED, result={}).kept
        return await look(self, job_id)

    monkeypatch.setattr(AsyncLedger, "ended", end_and_look)
    monkeypatch.setattr("shared.ledger.events.BLOCK_SECONDS", 1)
    names = [name for _, name, _ in _events(client, job.id)]
    assert names == ["state", "token", "state", "done"]


def test_events_of_an_answer_that_started_again_are_replayed_from_each_place(
    client: TestClient, ledger: Ledger
) -> None:
    job_id = submit(client)["job_id"]
    ledger.follow(job_id)
    job = claim(ledger, job_id, "gpu@a")
    assert ledger.report_text(job, 1, "brave")
    assert ledger.requeue(job, counts=False)
    job = claim(ledger, job.id, "gpu@b")
    assert ledger.report_text(job, 1, "Once")
    assert ledger.finish(job, JobState.SUCCEEDED, result={})
    events = _events(client, job.id)
    told = [(name, data) for _, name, data in events if name not in {"state", "done"}]
    assert told == [
        ("token", {"text": "brave"}),
        ("restart", {"attempt": 1}),
        ("token", {"text": "Once"}),
    ]
    for number, (event_id, _, _) in enumerate(events[:-1], 1):
        assert _events(client, job.id, event_id) == events[number:]


def _events(
    client: TestClient, job_id: str, after: str | None = None
) -> list[tuple[str, str, dict[str, Any]]]:
    headers = {"Last-Event-ID": after} if after else {}
    text = client.get(f"/jobs/{job_id}/events", headers=headers).text
    events = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        events.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return events


def test_infer_is_accepted_when_the_registry_is_away(client: TestClient) -> None:
    response = client.post("/inference/infer", json=INFER)
    job = response.json()
    assert response.status_code == 202
    assert (job["success"], job["task"], job["engine"]) == (None, "text-generation", "transformers")


def test_openapi_has_an_example_for_every_call(client: TestClient) -> None:
    calls = [
        (f"{method} {path}", call)
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method, call in methods.items()
    ]
    assert len(calls) >= 20
    for name, call in calls:
        body = call.get("requestBody", {}).get("content", {}).get("application/json")
        assert body is None or body.get("examples"), f"{name} shows no request"
        assert call.get("summary"), f"{name} has no summary"


def test_front_answers_503_while_redis_is_away(ledger_settings: LedgerSettings) -> None:
    away = RedisSettings.model_validate({"url": f"redis://127.0.0.1:{free_port()}/0"})
    with TestClient(create_app(Settings(redis=away, ledger=ledger_settings))) as client:
        for response in (
            client.post("/models/download", json=DOWNLOAD),
            client.get("/jobs/some-job"),
            client.get("/jobs/some-job?wait=5"),
            client.get("/health/ready"),
        ):
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
            assert response.json()["code"] == "redis_unavailable"
        assert client.get("/health/live").status_code == 200
