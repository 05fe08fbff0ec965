"""The servers that integration tests talk to: an MLflow and a lakeFS, real or the embedded one."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.jobs import Job, JobKind, JobState, Progress
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings
from tests.processes import free_port, running
from workers.context import JobContext


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server of this session; yields its address."""
    directory, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
        *("--artifacts-destination", str(directory / "artifacts")),
    ]
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with running(command, port=port, log=directory / "mlflow.log", env=env):
        yield f"http://127.0.0.1:{port}"


def _embedded_lakefs(directory: Path, *options: str) -> Iterator[LakeFSSettings]:
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
        yield from _embedded_lakefs(tmp_path_factory.mktemp("lakefs"))


@pytest.fixture(scope="session")
def presigning_lakefs_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LakeFSSettings]:
    """A lakeFS that hands out links to its object store, if the one at hand does at all."""
    if os.environ.get("LAKEFS_ENDPOINT"):
        yield LakeFSSettings()
    else:
        yield from _embedded_lakefs(tmp_path_factory.mktemp("lakefs-presign"), "--presign")


@pytest.fixture
def store(lakefs_server: LakeFSSettings) -> Iterator[LakeFSStore]:
    """A client of the session's lakeFS."""
    store = LakeFSStore(lakefs_server)
    yield store
    store.close()


@pytest.fixture
def repo(store: LakeFSStore) -> str:
    """A repository of the test's own, with a branch ``main``."""
    return store.ensure_repository(f"test-{uuid.uuid4().hex[:12]}").name


class Run:
    """One run of a job, and what it reported."""

    def __init__(self, kind: JobKind, request: dict[str, Any], job_id: str, attempts: int) -> None:
        now = datetime.now(UTC)
        self.token = CancelToken()
        self.reports: list[Progress] = []
        self.context = JobContext(
            Job(
                id=job_id,
                kind=kind,
                state=JobState.RUNNING,
                request=request,
                queue="test",
                priority=5,
                created_at=now,
                available_at=now,
                attempts=attempts,
                max_attempts=3,
            ),
            self.token,
            self.reports.append,
            lambda _: None,
        )


NewRun = Callable[..., Run]


@pytest.fixture
def new_run() -> NewRun:
    """Begin runs of jobs: ``new_run(kind, request)``, again with ``job_id`` and ``attempts``."""

    def begin(
        kind: JobKind, request: dict[str, Any], *, job_id: str = "", attempts: int = 1
    ) -> Run:
        return Run(kind, request, job_id or str(uuid.uuid4()), attempts)

    return begin
