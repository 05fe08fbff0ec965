"""The stack consists of what was not given from outside."""

import json
import socket
from pathlib import Path

import pytest

from embedded.data_directory import DataDirectory
from embedded.ports import Ports
from embedded.stack import Stack, Wishes, plan
from shared.settings import Settings

GIVEN = {
    "REDIS_URL": "redis://:secret@cache.example:6379/2",
    "MLFLOW_TRACKING_URI": "http://mlflow.example",
    "LAKEFS_ENDPOINT": "http://lakefs.example",
    "OLLAMA_HOST": "http://ollama.example:11434",
}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without settings, and an environment without them."""
    for name in (
        *GIVEN,
        "HF_ENDPOINT",
        "STORAGE_STAGING_DIR",
        "REDIS_BROKER_URL",
        "FLOWER_BASIC_AUTH",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(data: Path, *, embedded_hub: bool = False) -> Stack:
    wishes = Wishes(ports=Ports(any_free=True), embedded_hub=embedded_hub)
    return plan(Settings(), DataDirectory(data), wishes)


def started(stack: Stack) -> set[str]:
    return {service.name for service in stack.services}


PLATFORM = {"api", "worker-cpu", "worker-gpu", "worker-ollama", "flower"}


def test_everything_is_started_where_nothing_is_given(nowhere: Path) -> None:
    stack = planned(nowhere)

    assert started(stack) == {"redis", "mlflow", "lakefs"} | PLATFORM
    assert stack.outside == ()
    assert stack.hub == "https://huggingface.co"
    api = next(service for service in stack.services if service.name == "api")
    assert api.needs == ("redis",)
    assert api.env["STORAGE_STAGING_DIR"] == str(nowhere / "staging")


def test_a_worker_that_hangs_is_replaced_soon_after_its_lease(nowhere: Path) -> None:
    hung = {
        service.name: service.hung_seconds
        for service in planned(nowhere).services
        if service.name.startswith("worker-") and service.leans_on
    }
    assert hung == dict.fromkeys(("worker-cpu", "worker-gpu", "worker-ollama"), 20)


@pytest.mark.parametrize(
    ("visible", "workers"),
    [
        ("", {"worker-gpu": ()}),
        ("0", {"worker-gpu": ()}),
        (
            "0,3",
            {
                "worker-gpu-cuda0": ("--device", "cuda:0"),
                "worker-gpu-cuda1": ("--device", "cuda:1"),
            },
        ),
    ],
)
def test_each_of_several_gpus_has_a_worker(
    nowhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str,
    workers: dict[str, tuple[str, ...]],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = {
        service.name: service.command[4:]
        for service in planned(nowhere).services
        if service.name.startswith("worker-gpu")
    }
    assert found == workers


def test_what_is_given_is_not_started(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)

    stack = planned(nowhere)

    assert started(stack) == PLATFORM
    assert {part.name for part in stack.outside} == {"redis", "mlflow", "lakefs", "ollama"}
    assert all(service.needs == () for service in stack.services)


def test_no_password_is_shown(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", GIVEN["REDIS_URL"])

    stack = planned(nowhere)

    shown = [part.address for part in stack.outside]
    shown += [word for service in stack.services for word in service.command]
    assert not any("secret" in word for word in shown)
    assert "redis://cache.example:6379/2" in shown


def test_flowers_password_is_taken_from_wherever_settings_are(nowhere: Path) -> None:
    (nowhere / ".env").write_text("FLOWER_BASIC_AUTH=operator:secret\n")

    flower = next(each for each in planned(nowhere).services if each.name == "flower")

    assert flower.env["FLOWER_BASIC_AUTH"] == "operator:secret"
    assert not any("secret" in word for word in flower.command)


def test_a_hub_is_started_only_when_asked_for(nowhere: Path) -> None:
    stack = planned(nowhere, embedded_hub=True)

    assert "hub" in started(stack)
    worker = next(service for service in stack.services if service.name == "worker-cpu")
    assert worker.env["HF_ENDPOINT"] == stack.hub
    assert stack.hub.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_replaced() -> None:
    ports = Ports()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]

        assert ports.take(wanted) not in {wanted, 0}


def test_no_port_is_given_twice() -> None:
    ports = Ports()
    wanted = ports.take(0)

    assert ports.take(wanted) != wanted


def test_the_stack_listens_on_loopback_and_its_redis_asks_for_a_password(nowhere: Path) -> None:
    services = {service.name: service for service in planned(nowhere).services}
    redis, mlflow = services["redis"], services["mlflow"]
    config = nowhere / "redis" / "redis.conf"
    password = DataDirectory(nowhere).credentials().redis_password

    assert config.read_text() == f"requirepass {password}\n"
    assert config.stat().st_mode & 0o077 == 0
    assert f":{password}@" in services["api"].env["REDIS_URL"]
    assert f":{password}@" in services["flower"].env["CELERY_BROKER_URL"]
    assert password not in redis.component.address
    for service in services.values():
        assert not any(password in part for part in service.command), service.name
    assert "--bind 127.0.0.1" in " ".join(redis.command)
    assert "--host 127.0.0.1" in " ".join(mlflow.command)
    assert "--address=127.0.0.1" in services["flower"].command
    assert mlflow.env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert mlflow.env["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_a_directory_of_an_older_version_gets_the_credentials_that_it_lacks(tmp_path: Path) -> None:
    kept = {"access_key_id": "a", "secret_access_key": "s", "encryption_key": "e"}
    (tmp_path / "credentials.json").write_text(json.dumps(kept))
    credentials = DataDirectory(tmp_path).credentials()
    assert credentials.access_key_id == "a"
    assert credentials.redis_password
    assert DataDirectory(tmp_path).credentials() == credentials
