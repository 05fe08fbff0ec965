"""Whatever is killed, every accepted job ends as it should, and its effect is there once."""

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import lakefs
import pytest

from embedded.hub.faults import Fault
from embedded.hub.process import HubProcess
from shared.lakefs.store import LakeFSStore
from shared.registry import ModelRegistry
from shared.settings import LakeFSSettings, MLflowSettings
from tests.e2e.conftest import LARGE_BYTES, LARGE_MODEL
from tests.integration.lakefs_server import connect
from tests.interceptor import Interceptor
from tests.platform import Platform
from tests.processes import wait_until

#: What may be under way in sockets when a process is killed.
IN_FLIGHT_BYTES = 12 * 1024 * 1024
#: From the new worker's being ready to the job's going on, which is the lease's time at most.
RECOVERY_SECONDS = 100


@pytest.fixture(autouse=True)
def sound(hub: HubProcess) -> Iterator[None]:
    """Begin and end with a hub that has no faults."""
    hub.reset_stats()
    yield
    hub.set_faults()


def remove_staged(platform: Platform) -> None:
    shutil.rmtree(platform.staging / LARGE_MODEL.replace("/", "_"), ignore_errors=True)


def staged(platform: Platform) -> str:
    """The large model in the staging area; returns its name there."""
    name = platform.done("/models/download", model_name=LARGE_MODEL)["local_model_name"]
    return str(name)


def recover(platform: Platform, job_id: str, killed: str) -> float:
    """Start a killed worker again; return the seconds from the kill until the job goes on."""
    killed_at = time.monotonic()
    platform.start(killed)
    wait_until(
        lambda: platform.job(job_id)["attempt"] >= 2, RECOVERY_SECONDS, "the job's second run"
    )
    return time.monotonic() - killed_at


def generate(platform: Platform, tokens: int, **changes: Any) -> str:
    request = {
        "task": "text-generation",
        "model_name": "chat",
        "data": {"inputs": "the quick brown fox"},
        "options": {"max_new_tokens": tokens, "do_sample": False},
    }
    return str(platform.submit("/inference/infer", **(request | changes))["job_id"])


def test_download_goes_on_from_the_bytes_on_disk(
    platform: Platform, hub: HubProcess, figure: Callable[[str], None]
) -> None:
    remove_staged(platform)
    hub.set_faults(Fault(kind="throttle", path="*.safetensors", bytes_per_second=60 * 1024 * 1024))
    job_id = platform.submit("/models/download", model_name=LARGE_MODEL)["job_id"]
    wait_until(
        lambda: (
            (platform.job(job_id)["progress"] or {"completed": 0})["completed"] > LARGE_BYTES / 3
        ),
        what="a third is there",
    )
    platform.kill("cpu")
    seconds = recover(platform, job_id, "cpu")
    job = platform.ended(job_id)
    sent = hub.stats()["files"][f"{LARGE_MODEL}/model.safetensors"]["bytes_sent"]
    figure(f"download: went on {seconds:.1f} s after the kill")
    figure(f"download: the hub sent {sent / LARGE_BYTES:.3f} of the file's bytes in both runs")
    assert job["attempt"] == 2
    assert job["progress"]["completed"] == job["progress"]["total"]
    assert sent <= LARGE_BYTES + IN_FLIGHT_BYTES


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(r"POST .*/objects$|POST .*/commits$", id="during upload"),
        pytest.param(r"POST .*/commits$", id="after the commit on the job's branch"),
        pytest.param(r"POST .*/refs/.*/merge/", id="after the commit on main"),
    ],
)
def test_upload_makes_exactly_one_commit(
    platform: Platform,
    lakefs_server: LakeFSSettings,
    lakefs_proxy: Interceptor,
    moment: str,
) -> None:
    repo = f"kill-{uuid.uuid4().hex[:8]}"
    name = staged(platform)
    lakefs_proxy.catch(moment)
    job_id = platform.submit("/models/upload_to_lakefs", repo_name=repo, local_model_name=name)[
        "job_id"
    ]
    assert lakefs_proxy.caught.wait(60)
    platform.kill("cpu")
    recover(platform, job_id, "cpu")
    result = platform.ended(job_id)["result"]
    store = LakeFSStore(lakefs_server)
    client = connect(
        lakefs_server.endpoint,
        lakefs_server.access_key_id,
        lakefs_server.secret_access_key.get_secret_value(),
    )
    repository = lakefs.Repository(repo, client)
    log = list(repository.branch("main").log())
    branches = [branch.id for branch in repository.branches()]
    client.sdk_client._api.rest_client.pool_manager.clear()
    assert [commit.id for commit in log[:-1]] == [result["commit_id"]], "one, beside the first"
    assert branches == ["main"], "the job's own branch is gone"
    assert [file.size_bytes for file in store.files(repo, "main", result["path"])][
        -1
    ] == LARGE_BYTES
    store.close()


def test_registration_makes_exactly_one_version(
    platform: Platform, chat_model: str, mlflow_server: str, mlflow_proxy: Interceptor
) -> None:
    source = platform.http.get(f"/models/registered_in_mlflow/{chat_model}").json()[0]["tags"]
    mlflow_proxy.catch(r"POST .*/model-versions/create$")
    job_id = platform.submit(
        "/models/register_from_lakefs",
        registered_name="once",
        task="text-generation",
        lakefs_repo=source["lakefs_repo"],
        commit_id=source["lakefs_commit"],
        path=source["lakefs_path"],
        stage="production",
    )["job_id"]
    assert mlflow_proxy.caught.wait(60)
    platform.kill("cpu")
    recover(platform, job_id, "cpu")
    result = platform.ended(job_id)["result"]
    versions = ModelRegistry(MLflowSettings(tracking_uri=mlflow_server)).versions(
        "once", all_version=True
    )
    assert [(each.version, each.stage) for each in versions] == [(result["version"], "production")]


def test_generation_survives_its_worker(platform: Platform, chat_model: str) -> None:
    job_id = generate(platform, 600, stream=True)
    platform.wait_for(job_id, "token")
    platform.kill("gpu")
    recover(platform, job_id, "gpu")
    result = platform.ended(job_id)["result"]
    assert result["metadata"]["output_tokens"] == 600
    events = list(platform.events(job_id))
    (restart,) = [number for number, (name, _) in enumerate(events) if name == "restart"]
    text = "".join(data["text"] for name, data in events[restart:] if name == "token")
    assert text == result["generated_text"]


def test_jobs_survive_the_front(platform: Platform, chat_model: str) -> None:
    jobs = [generate(platform, 50) for _ in range(5)]
    platform.kill("api")
    platform.start("api")
    for job_id in jobs:
        platform.ended(job_id)


def test_jobs_survive_redis(platform: Platform, chat_model: str) -> None:
    running = generate(platform, 600, stream=True)
    platform.wait_for(running, "token")
    queued = [generate(platform, 20) for _ in range(5)]
    platform.kill("redis")
    refused = platform.http.post("/models/download", json={"model_name": LARGE_MODEL})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert httpx.get(f"{platform.http.base_url}/health/live").status_code == 200
    platform.start("redis")
    for job_id in [running, *queued]:
        platform.ended(job_id)


def test_cancelled_download_leaves_nothing_half_made(
    platform: Platform, hub: HubProcess, figure: Callable[[str], None]
) -> None:
    remove_staged(platform)
    hub.set_faults(Fault(kind="throttle", path="*.safetensors", bytes_per_second=20 * 1024 * 1024))
    job_id = platform.submit("/models/download", model_name=LARGE_MODEL)["job_id"]
    platform.wait_for(job_id, "progress")
    seconds = cancel(platform, job_id)
    figure(f"cancel: the download stopped {seconds:.2f} s after the cancel")
    sent = hub.stats()["bytes_sent"]
    assert seconds < 2 * 10, f"stopped after {seconds:.1f} s"
    assert LARGE_MODEL.replace("/", "_") not in [
        model["name"] for model in platform.http.get("/models/local").json()
    ]
    hub.set_faults()
    job = platform.ended(platform.submit("/models/download", model_name=LARGE_MODEL)["job_id"])
    assert job["result"]["resumed_bytes"] > 0
    assert hub.stats()["bytes_sent"] - sent <= LARGE_BYTES


def test_cancelled_generation_stops(
    platform: Platform, chat_model: str, figure: Callable[[str], None]
) -> None:
    job_id = generate(platform, 16_000, stream=True)
    platform.wait_for(job_id, "token")
    seconds = cancel(platform, job_id)
    figure(f"cancel: the generation stopped {seconds:.2f} s after the cancel")
    assert seconds < 2 * 10
    assert platform.job(job_id)["result"] is None


def cancel(platform: Platform, job_id: str) -> float:
    """Cancel a running job; return the seconds until its work has stopped."""
    asked = time.monotonic()
    platform.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    platform.ended(job_id, state="cancelled")
    return time.monotonic() - asked


def test_worker_told_to_stop_gives_its_job_back(platform: Platform, chat_model: str) -> None:
    job_id = generate(platform, 1200, stream=True)
    platform.wait_for(job_id, "token")
    platform.stop("gpu")
    assert platform.job(job_id)["state"] == "queued"
    assert platform.job(job_id)["attempt"] == 0
    platform.start("gpu")
    platform.ended(job_id)
