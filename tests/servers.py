"""The servers that tests talk to: a Redis, an MLflow and a lakeFS, real or the embedded one."""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded.redis import redis_command
from shared.settings import LakeFSSettings, RedisSettings
from tests.processes import free_port, running


@pytest.fixture(scope="session")
def redis_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    """A real Redis of this session."""
    directory, port = tmp_path_factory.mktemp("redis"), free_port()
    log = directory / "redis.log"
    with running(redis_command(port, directory), port=port, log=log):
        yield RedisSettings.model_validate({"url": f"redis://127.0.0.1:{port}/0"})


@contextmanager
def mlflow_running(directory: Path) -> Iterator[str]:
    """Run a real MLflow server for the length of a block; yields its address."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
        *("--artifacts-destination", str(directory / "artifacts")),
    ]
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with running(command, port=port, log=directory / "mlflow.log", env=env):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server of this session; yields its address."""
    with mlflow_running(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@contextmanager
def lakefs_running(directory: Path, *options: str) -> Iterator[LakeFSSettings]:
    """Run the embedded lakeFS for the length of a block; yields how to reach it."""
    port = free_port()
    keys = {"LAKEFS_ACCESS_KEY_ID": "test", "LAKEFS_SECRET_ACCESS_KEY": uuid.uuid4().hex}
    command = [
        *(sys.executable, "-m", "embedded.lakefs", "--host", "127.0.0.1", "--port", str(port)),
        *("--data", str(directory / "data"), *options),
    ]
    with running(command, port=port, log=directory / "lakefs.log", env=keys):
        yield LakeFSSettings.model_validate(
            {
                "endpoint": f"http://127.0.0.1:{port}",
                "access_key_id": keys["LAKEFS_ACCESS_KEY_ID"],
                "secret_access_key": keys["LAKEFS_SECRET_ACCESS_KEY"],
            }
        )


@pytest.fixture(scope="session")
def lakefs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeFSSettings]:
    """The lakeFS of ``LAKEFS_ENDPOINT``, else the embedded one, bytes through its API."""
    if os.environ.get("LAKEFS_ENDPOINT"):
        yield LakeFSSettings()
    else:
        with lakefs_running(tmp_path_factory.mktemp("lakefs")) as settings:
            yield settings


@pytest.fixture(scope="session")
def presigning_lakefs_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LakeFSSettings]:
    """A lakeFS that hands out links to its object store, if the one at hand does at all."""
    if os.environ.get("LAKEFS_ENDPOINT"):
        yield LakeFSSettings()
    else:
        with lakefs_running(tmp_path_factory.mktemp("lakefs-presign"), "--presign") as settings:
            yield settings
