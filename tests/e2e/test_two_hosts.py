"""Two hosts that share no directory but that of uploaded files: one is lost, and all ends well."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lakefs
import pytest

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from shared.settings import LakeFSSettings
from tests import media_samples
from tests.integration.lakefs_server import connect
from tests.platform import Json, Platform
from tests.tiny_audio_models import tiny_wav2vec2_classifier
from tests.tiny_models import tiny_llama

#: Five processes start, and the lost host's leases must run out.
pytestmark = pytest.mark.long

HOSTS = ("left", "right")
#: Of each, jobs of both kinds of workers.
STAGED, FETCHED, IMPORTED, REGISTERED, CHATS, SOUNDS = 6, 4, 4, 4, 10, 6
JOBS = 2 * STAGED + FETCHED + IMPORTED + REGISTERED + CHATS + SOUNDS


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub with many models that chat, and one that hears."""
    root, made = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("made")
    chat = tiny_llama(made / "chat")
    for number in range(STAGED + FETCHED + IMPORTED):
        publish(root, f"two/chat-{number}", _distinct(chat, made / f"chat-{number}"))
    publish(root, "two/ears", tiny_wav2vec2_classifier(made / "ears"))
    with HubProcess(root) as hub:
        yield hub


def _distinct(model: Path, target: Path) -> Path:
    """Copy a model; its commit is its own."""
    shutil.copytree(model, target)
    (target / "README.md").write_text(target.name)
    return target


@pytest.fixture(scope="module")
def platform(
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_server: str,
    lakefs_server: LakeFSSettings,
    hub: HubProcess,
) -> Iterator[Platform]:
    """A front, and a CPU and a GPU worker on each host."""
    directory = tmp_path_factory.mktemp("hosts")
    patience = {"WORKER_HOST_LOST_SECONDS": "3"}
    with Platform(directory, mlflow_server, lakefs_server, hub, HOSTS, **patience) as platform:
        yield platform


@pytest.fixture(scope="module")
def commits(lakefs_server: LakeFSSettings) -> Iterator[Callable[[str], list[str]]]:
    """Return the commits of a repository's main branch, but for its first."""
    client = connect(
        lakefs_server.endpoint,
        lakefs_server.access_key_id,
        lakefs_server.secret_access_key.get_secret_value(),
    )

    def of(repo: str) -> list[str]:
        return [commit.id for commit in lakefs.Repository(repo, client).branch("main").log()][:-1]

    yield of
    client.sdk_client._api.rest_client.pool_manager.clear()


def imported(platform: Platform, name: str, task: str = "text-generation") -> str:
    """Submit an import to production; returns the job's id."""
    job = platform.submit(
        "/models/import",
        model_name=f"two/{name}",
        repo_name=f"two-{name}",
        registered_name=f"two-{name}",
        task=task,
        stage="production",
    )
    return str(job["job_id"])


def upload(platform: Platform, number: int) -> str:
    """Submit an upload of a staged model; returns the job's id."""
    local, repo = f"two_chat-{number}", f"two-staged-{number}"
    call = "/models/upload_to_lakefs"
    return str(platform.submit(call, repo_name=repo, local_model_name=local)["job_id"])


def ask(platform: Platform, task: str, model: str, **data: Any) -> str:
    """Submit an inference; returns the job's id."""
    options = {"max_new_tokens": 8, "do_sample": False} if task == "text-generation" else {}
    job = platform.submit(
        "/inference/infer", task=task, model_name=model, data=data, options=options
    )
    return str(job["job_id"])


def sound(platform: Platform) -> str:
    """Upload a sound through the front; returns its id."""
    answer = platform.http.post("/files", files={"file": ("tone.wav", media_samples.audio("wav"))})
    return str(answer.raise_for_status().json()["file_id"])


def everything(platform: Platform, source: Json) -> list[str]:
    """Submit jobs of all kinds; returns their ids."""
    uploads = [upload(platform, number) for number in range(STAGED)]
    fetched = range(STAGED, STAGED + FETCHED)
    downloads = [
        platform.submit("/models/download", model_name=f"two/chat-{number}") for number in fetched
    ]
    later = range(STAGED + FETCHED, STAGED + FETCHED + IMPORTED)
    imports = [imported(platform, f"chat-{number}") for number in later]
    registrations = [
        platform.submit(
            "/models/register_from_lakefs",
            registered_name=f"two-again-{number}",
            task="text-generation",
            lakefs_repo=source["repo_name"],
            commit_id=source["commit_id"],
            path=source["path"],
        )
        for number in range(REGISTERED)
    ]
    chats = [
        ask(platform, "text-generation", source["name"], inputs=f"number {number}")
        for number in range(CHATS)
    ]
    sounds = [
        ask(platform, "audio-classification", "two-ears", audio=sound(platform))
        for _ in range(SOUNDS)
    ]
    submitted = [str(job["job_id"]) for job in (*downloads, *registrations)]
    return [*uploads, *submitted, *imports, *chats, *sounds]


def listed(platform: Platform, host: str) -> set[str]:
    """Return the models that the front says are staged on a host; it has none of them itself."""
    found = platform.http.get("/models/local").raise_for_status().json()
    return {str(model["name"]) for model in found if model["host"] == host}


def test_one_of_two_hosts_is_lost_with_staged_files_and_all_jobs_end_well(
    platform: Platform,
    commits: Callable[[str], list[str]],
    figure: Callable[[str], None],
) -> None:
    """It comes back in the end, and nothing is done twice."""
    platform.ended(imported(platform, "ears", "audio-classification"))
    first = imported(platform, f"chat-{STAGED + FETCHED}")
    source = platform.ended(first)["result"]

    # All of these are staged on the left, as no other host is there.
    platform.stop("cpu-right")
    for number in range(STAGED):
        platform.done("/models/download", model_name=f"two/chat-{number}")
    platform.start("cpu-right")
    staged = {path.name for path in platform.staging_of("left").iterdir()}
    assert {f"two_chat-{number}" for number in range(STAGED)} <= staged
    assert {f"two_chat-{number}" for number in range(STAGED)} <= listed(platform, "left")

    # Frozen, so that it does none of the uploads before it is lost.
    os.kill(platform.pid("cpu-left"), signal.SIGSTOP)
    jobs = everything(platform, source)
    assert len(jobs) + STAGED == JOBS
    platform.kill("cpu-left")
    platform.kill("gpu-left")
    ended = [platform.ended(job_id) for job_id in jobs]

    uploads = ended[:STAGED]
    assert {job["queue"] for job in uploads} == {"uploads"}, "their host was given up"
    assert {job["worker"].split("@")[0] for job in uploads} == {"cpu-right"}
    for number, job in enumerate(uploads):
        assert commits(f"two-staged-{number}") == [job["result"]["commit_id"]]
        assert (platform.staging_of("right") / f"two_chat-{number}").is_dir()
    assert {f"two_chat-{number}" for number in range(STAGED)} <= listed(platform, "right")
    assert not listed(platform, "left"), "a host without a worker can upload nothing"
    figure(f"two hosts: {JOBS} jobs, {sum(job['attempt'] > 1 for job in ended)} of them run again")

    platform.start("cpu-left", "gpu-left")
    again = platform.ended(upload(platform, 0))
    assert again["queue"] == "uploads.right", "where it is staged now"
    for number in range(STAGED):
        assert len(commits(f"two-staged-{number}")) == 1, "an upload of what is there is no commit"


def test_an_upload_runs_where_the_files_are(platform: Platform) -> None:
    for number in range(STAGED, STAGED + FETCHED):
        name = f"two/chat-{number}"
        download = platform.submit("/models/download", wait=100, model_name=name)
        job = platform.ended(upload(platform, number))
        assert job["worker"] == download["worker"]
        assert job["queue"].startswith("uploads.")
