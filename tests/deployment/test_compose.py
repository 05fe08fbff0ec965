"""The compose file follows its specification, hangs together, and wants its secrets."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values

from shared.lakefs.installation import ACCESS_KEY_ID_CHARACTERS
from shared.settings import Settings
from tests.deployment import REPOSITORY
from tests.deployment.compose_file import (
    COMPOSE_FILE,
    SECRETS,
    interpolated,
    raw,
    services,
)
from workers.process.shutdown import STOP_SECONDS

EXAMPLE = dotenv_values(REPOSITORY / ".env.example")
STORES_ON_NETWORK = REPOSITORY / "deploy/stores-on-network.yaml"
WORKERS = ("worker-cpu", "worker-gpu", "worker-inference", "worker-ollama")
OURS = {"api", "artifacts", "flower", "mlflow", *WORKERS}


def checked(*files: Path) -> "subprocess.CompletedProcess[str]":
    command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run(
        [sys.executable, "-m", *command, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_files_follow_the_compose_specification() -> None:
    result = checked(COMPOSE_FILE, STORES_ON_NETWORK)
    assert result.returncode == 0, result.stdout


def test_the_check_sees_what_the_specification_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {api: {image: x, heathcheck: {}}}")
    assert checked(wrong).returncode != 0


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_a_secret(missing: str) -> None:
    with pytest.raises(ValueError, match=f"required variable {missing} .* set it in .env"):
        interpolated(raw(), SECRETS | {missing: ""})


def test_the_secrets_are_all_that_is_required() -> None:
    assert interpolated(raw(), SECRETS)


def test_the_example_names_every_variable_and_no_other() -> None:
    text = COMPOSE_FILE.read_text() + STORES_ON_NETWORK.read_text()
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    # Compose itself reads this one.
    assert set(EXAMPLE) == used | {"COMPOSE_PROFILES"}


def test_the_example_holds_no_secret() -> None:
    assert {name: EXAMPLE[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")
    assert EXAMPLE["HF_TOKEN"] == EXAMPLE["S3_SECRET_ACCESS_KEY"] == ""


def test_the_documented_commands_fill_in_every_secret(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / ".env.example", tmp_path)
    page = (REPOSITORY / "docs/deployment.md").read_text()
    commands = page.split("```bash\n")[1].split("```")[0]
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, check=True)
    filled = {name: value or "" for name, value in dotenv_values(tmp_path / ".env").items()}
    assert {name for name in filled if filled[name] != EXAMPLE[name]} == set(SECRETS)
    assert interpolated(raw(), filled)
    assert len(filled["LAKEFS_ACCESS_KEY_ID"]) <= ACCESS_KEY_ID_CHARACTERS


def test_the_examples_values_are_the_defaults() -> None:
    given = {name: value or "" for name, value in EXAMPLE.items()} | SECRETS
    assert interpolated(raw(), given) == interpolated(raw(), SECRETS)


def test_secrets_stand_in_environments_only() -> None:
    """A command line is for everybody on the host to read."""
    for service in services().values():
        words = [*(service.command or []), *(service.health_check or [])]
        assert not [word for word in words for secret in SECRETS.values() if secret in word]


def test_only_api_and_flower_are_published_and_only_on_loopback() -> None:
    published = {name: each.definition.get("ports", []) for name, each in services().items()}
    assert {name: ports for name, ports in published.items() if ports} == {
        "api": ["127.0.0.1:8009:8009"],
        "flower": ["127.0.0.1:5555:5555"],
    }


def test_every_service_that_stays_says_how_its_health_is_asked_for() -> None:
    for service in services().values():
        image_does = service.target is not None
        assert service.health_check or image_does or service.name == "artifacts", service.name


def test_start_follows_health() -> None:
    found = services()
    for service in found.values():
        for name, condition in service.definition.get("depends_on", {}).items():
            ends = found[name].definition.get("restart") == "on-failure"
            wanted = "service_completed_successfully" if ends else "service_healthy"
            assert condition == {"condition": wanted}, (service.name, name)


def test_workers_have_the_time_that_their_drain_takes() -> None:
    drain = Settings().worker.drain_seconds + STOP_SECONDS
    for name in WORKERS:
        grace = services()[name].definition["stop_grace_period"]
        assert float(grace.removesuffix("s")) > drain + 5


def test_our_processes_have_an_init_and_no_privileges() -> None:
    for name in OURS:
        definition = services()[name].definition
        assert definition["init"] is True
        assert definition["cap_drop"] == ["ALL"]
        assert definition["security_opt"] == ["no-new-privileges:true"]


def test_images_of_others_are_pinned() -> None:
    for service in services().values():
        if service.name not in OURS:
            assert re.fullmatch(r"[\w/]+:\d+(\.\d+)+(-alpine)?|postgres:\d+-alpine", service.image)


def test_services_that_are_built_together_write_images_of_their_own() -> None:
    """Builds run in parallel, and two that write the same name fail."""
    found = services()
    together = {name for name in OURS if found[name].target} - {"worker-gpu"}  # worker-inference
    assert len({found[name].image for name in together}) == len(together)


def test_every_volume_is_declared_and_every_file_that_is_mounted_exists() -> None:
    for service in services().values():
        for volume in service.definition.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (REPOSITORY / source).exists()
            else:
                assert source in raw()["volumes"]


def test_what_is_uploaded_reaches_the_workers_and_downloads_stay_with_theirs() -> None:
    found = services()
    users = {
        volume: {
            name
            for name, each in found.items()
            for mount in each.definition.get("volumes", [])
            if mount.startswith(f"{volume}:")
        }
        for volume in ("files", "snapshots", "staging")
    }
    answering = {"worker-gpu", "worker-inference"}
    assert users == {
        "files": {"api", *answering},
        "snapshots": answering,
        "staging": {"api", "worker-cpu"},
    }


def test_each_worker_container_is_a_host_of_its_own() -> None:
    """The health check looks at the workers of its host."""
    found = services()
    hosts = {found[name].environment["STORAGE_HOST_ID"] for name in WORKERS}
    assert len(hosts) == 3


def test_only_one_kind_of_inference_worker_runs() -> None:
    found = services()
    assert found["worker-inference"].definition["profiles"] == ["cpu"]
    assert found["worker-gpu"].definition["profiles"] == ["gpu"]
    assert EXAMPLE["COMPOSE_PROFILES"] == "cpu"


def test_ollama_comes_with_a_worker_that_knows_how_much_it_serves_at_once() -> None:
    found = services(OLLAMA_NUM_PARALLEL="4")
    profiles = found["worker-ollama"].definition["profiles"]
    assert {"ollama", "ollama-gpu"} < set(profiles)
    for name in ("ollama", "ollama-gpu", "worker-ollama"):
        assert found[name].environment["OLLAMA_NUM_PARALLEL"] == "4"


@pytest.mark.parametrize("name", ["worker-gpu", "ollama-gpu"])
def test_what_answers_on_a_gpu_is_given_one(name: str) -> None:
    deploy = services()[name].definition["deploy"]
    [device] = deploy["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_ollama_on_a_gpu_is_the_same_ollama() -> None:
    """For the platform it is at the same address, and it has the models that were pulled before."""
    found = services()
    on_cpu, on_gpu = (dict(found[name].definition) for name in ("ollama", "ollama-gpu"))
    assert on_gpu.pop("networks") == {"default": {"aliases": ["ollama"]}}
    assert (on_cpu.pop("profiles"), on_gpu.pop("profiles")) == (["ollama"], ["ollama-gpu"])
    assert on_gpu.pop("deploy")
    assert on_cpu == on_gpu


def test_workers_elsewhere_reach_the_stores_and_ollama_by_the_private_address() -> None:
    stores = yaml.safe_load(STORES_ON_NETWORK.read_text())["services"]
    published = interpolated(stores, {"STORES_ADDRESS": "10.0.0.5"})
    wanted = {"redis": 6379, "lakefs": 8000, "mlflow": 5000, "ollama": 11434, "ollama-gpu": 11434}
    assert published == {
        name: {"ports": [f"10.0.0.5:{port}:{port}"]} for name, port in wanted.items()
    }
    with pytest.raises(ValueError, match="STORES_ADDRESS"):
        interpolated(stores, {})


def test_mlflow_takes_requests_to_the_name_that_it_is_called_by() -> None:
    """By default it refuses every name but the loopback's, and the platform's calls with it."""
    found = services()
    address = found["worker-cpu"].environment["MLFLOW_TRACKING_URI"]
    hosts = found["mlflow"].environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert address.removeprefix("http://") in hosts


def test_mlflow_can_be_called_by_another_name_too() -> None:
    hosts = services(MLFLOW_ALLOWED_HOSTS="10.0.0.5:5000")["mlflow"].environment
    assert hosts["MLFLOW_SERVER_ALLOWED_HOSTS"].endswith("127.0.0.1:*,10.0.0.5:5000")


def test_every_variable_of_the_platform_is_a_setting() -> None:
    known = {
        f"{group.model_config.get('env_prefix', '')}{field}".upper()
        for group in Settings().__dict__.values()
        for field in type(group).model_fields
    }
    # Read by MLflow's own client, and by the command line.
    known |= {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    known |= {"LIFECYCLE_API_URL", "LIFECYCLE_API_KEY"}
    for name in ("api", *WORKERS):
        assert set(services()[name].environment) <= known, name
