"""A model's way from the hub to an answer through the public API, and every wrong turn."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from prometheus_client.parser import text_string_to_metric_families

from embedded.hub.faults import Fault, FaultKind
from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from tests.e2e.conftest import CHAT_MODEL
from tests.platform import Platform
from tests.processes import wait_until

PROMPT = {"inputs": "the quick brown fox"}
GREEDY = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(autouse=True)
def sound(hub: HubProcess) -> Iterator[None]:
    """End with a hub that has no faults."""
    yield
    hub.set_faults()


def infer(platform: Platform, **changes: Any) -> httpx.Response:
    body = {"task": "text-generation", "model_name": "chat", "data": PROMPT, "options": GREEDY}
    return platform.http.post("/inference/infer?wait=60", json=body | changes)


def problem(response: httpx.Response) -> tuple[int, str, str]:
    """Return the status, the code and the detail of a problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    return response.status_code, document["code"], document["detail"]


def test_mlflow_sees_version_tags_and_alias(
    platform: Platform, chat_model: str, mlflow_server: str
) -> None:
    client = MlflowClient(tracking_uri=mlflow_server, registry_uri=mlflow_server)
    version = client.get_model_version_by_alias(chat_model, "production")
    tags = version.tags
    assert version.source == f"lakefs://{tags['lakefs_repo']}/{tags['lakefs_commit']}/tests_chat"
    assert (tags["inference_task"], tags["engine"]) == ("text-generation", "transformers")
    assert (tags["stage"], tags["model_source"]) == ("production", "huggingface")
    assert float(tags["model_params"]) > 0
    assert platform.job(tags["job_id"])["kind"] == "register"


def test_answer_has_the_fields_of_a_synchronous_endpoint(
    platform: Platform, chat_model: str
) -> None:
    job = infer(platform).json()
    assert job["success"] is True
    assert (job["task"], job["engine"], job["model_name"]) == (
        "text-generation",
        "transformers",
        chat_model,
    )
    assert job["model_version"] == job["result"]["metadata"]["version"]
    assert job["processing_time"] > 0
    assert job["result"]["generated_text"]
    listed = platform.http.get(f"/models/registered_in_mlflow/{chat_model}").json()
    assert job["result"]["metadata"]["commit"] == listed[0]["tags"]["lakefs_commit"]


def test_second_inference_finds_the_model_warm(platform: Platform, chat_model: str) -> None:
    infer(platform).raise_for_status()
    before = cache(platform)
    metadata = infer(platform).json()["result"]["metadata"]
    assert metadata["cache_hit"] is True
    # The worker tells its counts with its next heartbeat.
    wait_until(lambda: cache(platform)["hits"] > before["hits"], what="hit is counted")
    assert cache(platform)["misses"] == before["misses"]


def test_metrics_follow_an_inference(platform: Platform, chat_model: str) -> None:
    infer(platform).raise_for_status()
    before = metrics(platform)
    job = infer(platform).raise_for_status().json()
    ended = ("lifecycle_jobs_ended_total", "infer", "succeeded")
    wait_until(lambda: metrics(platform)[ended] == before[ended] + 1, what="the end is counted")
    hits = ("lifecycle_cache_hits_total", job["worker"])
    # The worker tells its counts with its next heartbeat.
    wait_until(lambda: metrics(platform)[hits] > before[hits], what="the hit is counted")
    after = metrics(platform)
    runs = ("lifecycle_run_duration_seconds_count", "infer")
    assert after[runs] == before[runs] + 1
    assert after["lifecycle_workers", "gpu"] == after["lifecycle_workers", "cpu"] == 1
    assert after["lifecycle_cache_models", job["worker"]] >= 1


def metrics(platform: Platform) -> dict[tuple[str, ...], float]:
    """Scrape, and return the samples by their name and the values of their labels."""
    families = text_string_to_metric_families(platform.http.get("/metrics").text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_job_id_is_in_the_logs_of_front_and_worker(platform: Platform, chat_model: str) -> None:
    body = {"task": "text-generation", "model_name": "chat", "data": PROMPT, "options": GREEDY}
    response = platform.http.post(
        "/inference/infer?wait=60", json=body, headers={"X-Request-ID": "from-the-client"}
    )
    job_id = response.raise_for_status().json()["job_id"]

    def lines(name: str) -> list[dict[str, Any]]:
        read = (json.loads(line) for line in platform.log(name).splitlines() if line[:1] == "{")
        return [line for line in read if line.get("job_id") == job_id]

    wait_until(lambda: lines("api"), what="the call is logged")
    (call,) = lines("api")
    assert (call["request_id"], call["route"]) == ("from-the-client", "/inference/infer")
    wait_until(lambda: len(lines("gpu")) > 1, what="the end of the job is logged")
    assert {line["event"] for line in lines("gpu")} >= {"job started", "job left"}


def cache(platform: Platform) -> dict[str, int]:
    total = platform.http.get("/inference/stats").json()["total"]
    return {"hits": total["hits"], "misses": total["misses"]}


def test_cache_can_be_cleared(platform: Platform, chat_model: str) -> None:
    infer(platform).raise_for_status()
    answer = platform.http.post("/inference/cache/clear", json={"model_name": chat_model}).json()
    (worker,) = answer["workers"].values()
    assert [model["name"] for model in worker["unloaded"]] == [chat_model]
    assert worker["in_use"] == []
    assert infer(platform).json()["result"]["metadata"]["cache_hit"] is False


def test_streamed_pieces_are_the_answer(platform: Platform, chat_model: str) -> None:
    whole = infer(platform).json()["result"]["generated_text"]
    job = platform.submit(
        "/inference/infer",
        task="text-generation",
        model_name=chat_model,
        data=PROMPT,
        options=GREEDY,
        stream=True,
    )
    pieces = [data["text"] for name, data in platform.events(job["job_id"]) if name == "token"]
    assert len(pieces) > 1
    assert "".join(pieces) == whole


def test_health_shows_every_component(platform: Platform) -> None:
    health = platform.http.get("/models/health").json()
    assert health["status"] == "ok"
    assert {name for name, each in health["components"].items() if each["status"] == "up"} >= {
        "redis",
        "mlflow",
        "lakefs",
        "hub",
    }
    workers = platform.http.get("/inference/health").json()
    assert workers["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("download", {"model_name": "no/such-model"}, (404, "model_not_found", "no/such-model")),
        (
            "download",
            {"model_name": CHAT_MODEL, "revision": "no-such-branch"},
            (404, "revision_not_found", "no-such-branch"),
        ),
        (
            "upload_to_lakefs",
            {"repo_name": "some-repo", "local_model_name": "not-there"},
            (404, "model_not_staged", "not-there"),
        ),
        (
            "register_from_lakefs",
            {"lakefs_repo": "no-such-repo", "commit_id": "abcdef12"},
            (404, "repository_not_found", "no-such-repo"),
        ),
        (
            "register_from_lakefs",
            {"lakefs_repo": "chat", "commit_id": "abcdef12"},
            (404, "commit_not_found", "abcdef12"),
        ),
    ],
)
def test_what_does_not_exist_is_named(
    platform: Platform,
    chat_model: str,
    path: str,
    body: dict[str, Any],
    expected: tuple[int, str, str],
) -> None:
    if path == "register_from_lakefs":
        body = {"registered_name": "new", "task": "text-generation"} | body
    status, code, detail = problem(platform.http.post(f"/models/{path}?wait=60", json=body))
    assert (status, code) == expected[:2]
    assert expected[2] in detail


@pytest.mark.parametrize(
    ("changes", "status", "code", "named"),
    [
        ({"model_name": "nobody"}, 404, "registered_model_not_found", "nobody"),
        ({"version": "99"}, 404, "version_not_found", "99"),
        ({"stage": "staging"}, 409, "no_servable_version", "staging"),
        ({"task": "asr", "data": {"audio": "x"}}, 422, "unsupported_task", "text-generation"),
        ({"data": {"prompt": "x"}}, 422, "invalid_input", "inputs"),
    ],
)
def test_inference_that_cannot_be_served_is_refused(
    platform: Platform, chat_model: str, changes: dict[str, Any], status: int, code: str, named: str
) -> None:
    response = infer(platform, **changes)
    assert problem(response)[:2] == (status, code)
    assert named in response.text


def test_name_without_a_servable_version_is_409(platform: Platform, chat_model: str) -> None:
    tags = platform.http.get(f"/models/registered_in_mlflow/{chat_model}").json()[0]["tags"]
    version = platform.done(
        "/models/register_from_lakefs",
        registered_name="unstaged",
        task="text-generation",
        lakefs_repo=tags["lakefs_repo"],
        commit_id=tags["lakefs_commit"],
    )
    assert version["stage"] == "none"
    assert problem(infer(platform, model_name="unstaged"))[:2] == (409, "no_servable_version")
    promotion = {"model_name": "unstaged", "version": version["version"], "stage": "staging"}
    platform.http.post("/models/transition_stage", json=promotion).raise_for_status()
    assert infer(platform, model_name="unstaged").status_code == 200


def test_transition_is_seen_by_the_next_request(platform: Platform, chat_model: str) -> None:
    """What was resolved before a transition is not remembered, in whichever process."""
    tags = platform.http.get(f"/models/registered_in_mlflow/{chat_model}").json()[0]["tags"]
    for _ in range(2):
        version = platform.done(
            "/models/register_from_lakefs",
            registered_name="moving",
            task="text-generation",
            lakefs_repo=tags["lakefs_repo"],
            commit_id=tags["lakefs_commit"],
            stage="production",
        )["version"]
        assert infer(platform, model_name="moving").json()["model_version"] == version


def test_wrong_task_is_refused_at_registration(platform: Platform, chat_model: str) -> None:
    tags = platform.http.get(f"/models/registered_in_mlflow/{chat_model}").json()[0]["tags"]
    body = {"registered_name": "ears", "task": "asr", "lakefs_repo": tags["lakefs_repo"]}
    response = platform.http.post(
        "/models/register_from_lakefs?wait=60", json=body | {"commit_id": tags["lakefs_commit"]}
    )
    assert problem(response)[:2] == (422, "unsupported_task")


def test_pickle_only_weights_are_refused(
    platform: Platform, hub: HubProcess, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    publish(hub.root, "tests/pickle", tmp_path)
    response = platform.http.post("/models/download?wait=60", json={"model_name": "tests/pickle"})
    assert problem(response)[:2] == (422, "pickle_weights")


def test_wrong_digest_fails_and_leaves_nothing(
    platform: Platform, hub: HubProcess, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(100_000))
    publish(hub.root, "tests/corrupt", tmp_path)
    hub.set_faults(Fault(kind=FaultKind.CORRUPT, path="*.safetensors"))
    request = {"model_name": "tests/corrupt"}
    response = platform.http.post("/models/download?wait=60", json=request)
    assert problem(response)[:2] == (502, "digest_mismatch")
    assert not (platform.staging / "tests_corrupt").exists()
    hub.set_faults(Fault(kind=FaultKind.CORRUPT, path="*.safetensors", times=1))
    again = platform.http.post("/models/download?wait=60", json=request)
    assert again.status_code == 200, "fetched again once, and then it was right"


def test_download_waits_for_a_hub_that_is_down(
    platform: Platform, hub: HubProcess, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    publish(hub.root, "tests/away", tmp_path)
    hub.set_faults(Fault(kind=FaultKind.STATUS, path="*", status=503))
    components = platform.http.get("/models/health").json()["components"]
    assert components["hub"]["status"] == "down"
    job = platform.http.post("/models/download", json={"model_name": "tests/away"}).json()

    def look() -> dict[str, Any]:
        return platform.http.get(f"/jobs/{job['job_id']}").json()  # type: ignore[no-any-return]

    wait_until(lambda: look()["waiting_for"], what="the job waits for the hub")
    waiting = look()
    assert waiting["waiting_for"]["service"] == "hub"
    assert waiting["message"].startswith("waits for hub, away since")
    hub.set_faults()
    wait_until(lambda: look()["state"] == "succeeded", what="the job goes on")
    ended = look()
    assert (ended["attempt"], ended["waiting_for"]) == (1, None)


def test_batch_fails_for_the_one_item_that_does(platform: Platform) -> None:
    items = [{"model_name": CHAT_MODEL}, {"model_name": "no/such-model"}]
    job_id = platform.submit("/models/batch_download", downloads=items)["job_id"]
    job = platform.ended(job_id, state="failed")
    assert job["error"]["code"] == "batch_incomplete"
    assert [line["field"] for line in job["error"]["errors"]] == ["no/such-model"]
    (good,) = job["result"]["succeeded"]
    assert good["result"]["local_model_name"] == "tests_chat"
