"""One call takes a model from the hub to production, whatever is killed on the way."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import lakefs
import pytest

from embedded.hub.faults import Fault
from embedded.hub.process import HubProcess
from shared.settings import LakeFSSettings
from tests.e2e.conftest import CHAT_MODEL, LARGE_BYTES, LARGE_MODEL
from tests.integration.lakefs_server import connect
from tests.interceptor import Interceptor
from tests.ollama_server import Model, OllamaTestServer
from tests.platform import Json, Platform
from tests.processes import wait_until

pytestmark = pytest.mark.long

SMOKE = {"data": {"inputs": "the quick"}, "options": {"max_new_tokens": 3, "do_sample": False}}


@pytest.fixture
def name() -> str:
    """A name for the test's own registered model and its repository."""
    return f"import-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def submit(platform: Platform, name: str) -> Callable[..., str]:
    """Import the chat model to production, with changes; returns the job's id."""

    def run(**changes: Any) -> str:
        body = {
            "model_name": CHAT_MODEL,
            "repo_name": name,
            "registered_name": name,
            "task": "text-generation",
            "stage": "production",
        }
        return str(platform.submit("/models/import", **(body | changes))["job_id"])

    return run


@pytest.fixture(autouse=True)
def sound(hub: HubProcess) -> Iterator[None]:
    """Begin and end with a hub that has no faults."""
    hub.reset_stats()
    yield
    hub.set_faults()


def children(platform: Platform, job: Json) -> list[Json]:
    found = [platform.job(child) for child in job["children"]]
    return sorted(found, key=lambda child: str(child["created_at"]))


def commits(server: LakeFSSettings, repo: str) -> list[str]:
    """The commits of a repository's main branch, but for the first one."""
    client = connect(
        server.endpoint, server.access_key_id, server.secret_access_key.get_secret_value()
    )
    try:
        return [commit.id for commit in lakefs.Repository(repo, client).branch("main").log()][:-1]
    finally:
        client.sdk_client._api.rest_client.pool_manager.clear()


def versions(platform: Platform, name: str) -> list[Json]:
    answer = platform.http.get(f"/models/registered_in_mlflow/{name}?all_version=true")
    return list(answer.raise_for_status().json())


def test_an_import_shows_its_steps_and_ends_in_production(
    platform: Platform, submit: Callable[..., str], name: str, figure: Callable[[str], None]
) -> None:
    job_id = submit(smoke_test=SMOKE, set_priority_to_one=True)
    seen = list(platform.events(job_id))
    job = platform.ended(job_id)
    result = job["result"]
    started, finished = (datetime.fromisoformat(job[at]) for at in ("started_at", "finished_at"))
    figure(f"import: a small model took {(finished - started).total_seconds():.1f} s")
    steps = children(platform, job)
    assert [step["kind"] for step in steps] == ["download", "upload", "register", "infer"]
    assert {step["parent_id"] for step in steps} == {job_id}
    assert {step["state"] for step in steps} == {"succeeded"}
    assert (result["name"], result["version"], result["stage"]) == (name, "1", "production")
    assert result["commit_id"] == steps[1]["result"]["commit_id"]
    assert (result["repo_name"], result["path"]) == (name, "tests_chat")
    assert result["revision"] == steps[0]["result"]["revision"]
    assert result["smoke"]["generated_text"] == steps[3]["result"]["generated_text"]
    progress = [data for event, data in seen if event == "progress"]
    assert {"upload", "register", "infer", "done"} <= {each["message"] for each in progress}
    completed = [each["completed"] for each in progress]
    assert completed == sorted(completed)
    assert job["progress"]["completed"] == job["progress"]["total"] == 2 * result["size_bytes"]
    (version,) = versions(platform, name)
    (change,) = version["history"]
    assert (change["from"], change["to"], change["kind"]) == ("none", "production", "register")
    assert change["job_id"] == job_id


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(r"POST .*/refs/.*/merge/", id="after the commit"),
        pytest.param(r"POST .*/model-versions/create$", id="after the version"),
        pytest.param(r"POST .*/model-versions/set-tag$", id="before the stage"),
        pytest.param(r"POST .*/registered-models/alias$", id="after the stage"),
    ],
)
def test_a_killed_worker_leaves_one_commit_one_version_and_one_stage(
    platform: Platform,
    submit: Callable[..., str],
    name: str,
    moment: str,
    lakefs_server: LakeFSSettings,
    lakefs_proxy: Interceptor,
    mlflow_proxy: Interceptor,
) -> None:
    proxy = lakefs_proxy if "merge" in moment else mlflow_proxy
    proxy.catch(moment)
    job_id = submit()
    assert proxy.caught.wait(60)
    platform.kill("cpu")
    platform.start("cpu")
    result = platform.ended(job_id)["result"]
    assert commits(lakefs_server, name) == [result["commit_id"]]
    (version,) = versions(platform, name)
    assert (version["version"], version["stage"]) == (result["version"], "production")
    assert version["aliases"] == ["production"]
    assert [change["to"] for change in version["history"]] == ["production"]


def test_a_killed_gpu_worker_is_asked_again(
    platform: Platform, submit: Callable[..., str], name: str
) -> None:
    long = SMOKE | {"options": {"max_new_tokens": 1500, "do_sample": False}}
    job_id = submit(smoke_test=long)

    def answering() -> bool:
        steps = children(platform, platform.job(job_id))
        return bool(steps) and steps[-1]["kind"] == "infer" and steps[-1]["state"] == "running"

    wait_until(answering, 60, "the smoke test runs")
    assert versions(platform, name)[0]["stage"] == "none"
    platform.kill("gpu")
    platform.start("gpu")
    result = platform.ended(job_id)["result"]
    assert result["smoke"]["metadata"]["output_tokens"] == 1500
    assert [each["stage"] for each in versions(platform, name)] == ["production"]


def test_another_answer_than_expected_leaves_the_version_without_its_stage(
    platform: Platform, submit: Callable[..., str], name: str
) -> None:
    job_id = submit(smoke_test=SMOKE | {"expect_contains": "forty-two"})
    job = platform.ended(job_id, state="failed")
    assert job["error"]["code"] == "smoke_test_failed"
    assert "forty-two" in job["error"]["detail"]
    assert [each["stage"] for each in versions(platform, name)] == ["none"]


def test_a_retried_import_goes_on_at_the_step_that_failed(
    platform: Platform,
    submit: Callable[..., str],
    name: str,
    hub: HubProcess,
    lakefs_server: LakeFSSettings,
) -> None:
    job_id = submit(task="vlm")
    job = platform.ended(job_id, state="failed")
    assert job["error"]["code"] == "unsupported_task"
    assert job["error"]["detail"].startswith("register failed: ")
    hub.reset_stats()
    platform.http.post(f"/jobs/{job_id}/retry").raise_for_status()
    again = platform.ended(job_id, state="failed")
    assert again["children"] == job["children"]
    assert hub.stats()["bytes_sent"] == 0
    assert len(commits(lakefs_server, name)) == 1


def test_a_cancelled_import_stops_its_step_and_goes_on_when_it_is_retried(
    platform: Platform, submit: Callable[..., str], hub: HubProcess
) -> None:
    shutil.rmtree(platform.staging / LARGE_MODEL.replace("/", "_"), ignore_errors=True)
    hub.set_faults(Fault(kind="throttle", path="*.safetensors", bytes_per_second=60 * 1024 * 1024))
    job_id = submit(model_name=LARGE_MODEL, stage=None, task="text-generation")
    wait_until(
        lambda: (
            (platform.job(job_id)["progress"] or {"completed": 0})["completed"] > LARGE_BYTES / 3
        ),
        what="a third is there",
    )
    progress = platform.job(job_id)["progress"]
    assert progress["message"] == "download: model.safetensors"
    assert progress["total"] > 2 * LARGE_BYTES
    platform.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    job = platform.ended(job_id, state="cancelled")
    assert [child["state"] for child in children(platform, job)] == ["cancelled"]
    hub.set_faults()
    platform.http.post(f"/jobs/{job_id}/retry").raise_for_status()
    wait_until(lambda: len(platform.job(job_id)["children"]) > 1, 60, "the upload has begun")
    (download, *_) = children(platform, platform.job(job_id))
    assert download["result"]["resumed_bytes"] > LARGE_BYTES / 4
    platform.ended(job_id, state="failed")  # its weights are noise, which registration finds out


def test_files_of_a_lost_host_are_downloaded_again(
    platform: Platform,
    submit: Callable[..., str],
    name: str,
    lakefs_server: LakeFSSettings,
    lakefs_proxy: Interceptor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lakefs_proxy.catch(r"POST .*/objects$")
    job_id = submit()
    assert lakefs_proxy.caught.wait(60)
    platform.kill("cpu")
    elsewhere = {
        "STORAGE_HOST_ID": "elsewhere",
        "STORAGE_STAGING_DIR": str(platform.directory / "elsewhere"),
        "WORKER_HOST_LOST_SECONDS": "1",
    }
    with monkeypatch.context() as other_host:
        for setting, value in elsewhere.items():
            other_host.setitem(platform.env, setting, value)
        platform.start("cpu")
        job = platform.ended(job_id)
        platform.stop("cpu")
    platform.start("cpu")
    steps = [(step["kind"], step["state"]) for step in children(platform, job)]
    assert steps == [
        ("download", "succeeded"),
        ("upload", "failed"),
        ("download", "succeeded"),
        ("upload", "succeeded"),
        ("register", "succeeded"),
    ]
    assert children(platform, job)[1]["error"]["code"] == "host_lost"
    assert commits(lakefs_server, name) == [job["result"]["commit_id"]]
    assert [each["stage"] for each in versions(platform, name)] == ["production"]


def test_a_model_of_ollama_is_pulled_registered_tried_and_staged(
    platform: Platform, ollama: OllamaTestServer, submit: Callable[..., str], name: str
) -> None:
    model = Model(f"{name}:1b")
    ollama.library[model.name] = model
    body = {"model_source": "ollama", "model_name": model.name, "repo_name": None}
    job_id = submit(
        **body,
        smoke_test={"data": {"inputs": "good morning"}, "expect_contains": "morning"},
    )
    job = platform.ended(job_id)
    assert [step["kind"] for step in children(platform, job)] == ["download", "register", "infer"]
    result = job["result"]
    assert (result["name"], result["stage"], result["commit_id"]) == (name, "production", None)
    assert job["progress"]["completed"] == job["progress"]["total"] == result["size_bytes"]


def test_a_rollback_serves_the_version_before(
    platform: Platform, submit: Callable[..., str], name: str, hub: HubProcess
) -> None:
    platform.ended(submit())
    platform.ended(submit(archive_existing_versions=True))
    body = {"model_name": name, "stage": "production"}
    answer = platform.http.post("/models/rollback_stage", json=body | {"from_version": "2"})
    assert answer.raise_for_status().json() == {
        "message": f"{name} production is back at version 1",
        "version": "1",
    }
    assert {each["version"]: each["stage"] for each in versions(platform, name)} == {
        "1": "production",
        "2": "archived",
    }
    again = platform.http.post("/models/rollback_stage", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "no_earlier_version")
