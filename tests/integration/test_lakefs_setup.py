"""A lakeFS that nobody has set up: the platform does it, once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from lakefs.repository import Repository
from lakefs_sdk.api.internal_api import InternalApi
from lakefs_sdk.models.setup_state import SetupState

from shared.lakefs.connection import connect
from shared.lakefs.installation import set_up
from shared.settings import LakeFSSettings
from tests.integration.lakefs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, EmbeddedServer


@pytest.fixture
def new(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server without a user, as the real one on PostgreSQL begins."""
    with EmbeddedServer(tmp_path, is_set_up=False) as server:
        yield server


def keys(server: EmbeddedServer, secret: str = SECRET_ACCESS_KEY) -> LakeFSSettings:
    return LakeFSSettings.model_validate(
        {
            "endpoint": server.endpoint,
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": secret,
        }
    )


def command(
    server: EmbeddedServer, access_key_id: str = ACCESS_KEY_ID
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "shared.lakefs", "mlflow-artifacts"],
        env=os.environ
        | {
            "LAKEFS_ENDPOINT": server.endpoint,
            "LAKEFS_ACCESS_KEY_ID": access_key_id,
            "LAKEFS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def state(server: EmbeddedServer) -> str:
    return str(httpx.get(f"{server.endpoint}/api/v1/setup_lakefs").json()["state"])


def may_come_in(settings: LakeFSSettings) -> bool:
    with connect(settings) as client:
        status = client.get("/repositories").status_code
    assert status in {200, 401}
    return status == 200


def test_the_command_sets_lakefs_up_and_makes_the_repository(new: EmbeddedServer) -> None:
    assert state(new) == "not_initialized"
    for _ in range(2):
        result = command(new)
        assert result.returncode == 0, result.stderr
        assert state(new) == "initialized"
    repository = httpx.get(
        f"{new.endpoint}/api/v1/repositories/mlflow-artifacts",
        auth=(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
    )
    assert repository.status_code == 200


def test_a_key_that_the_s3_gateway_would_not_take_sets_nothing_up(new: EmbeddedServer) -> None:
    result = command(new, "AKIA" + "0" * 17)
    assert result.returncode == 1
    assert result.stderr.startswith("LAKEFS_ACCESS_KEY_ID has 21 characters; ")
    assert "Traceback" not in result.stderr
    assert state(new) == "not_initialized"


def test_nobody_comes_in_before_the_setup_nor_with_other_keys_after_it(
    new: EmbeddedServer,
) -> None:
    assert not may_come_in(keys(new))
    set_up(keys(new))
    assert may_come_in(keys(new))
    set_up(keys(new, "another"))
    assert not may_come_in(keys(new, "another"))


def test_somebody_else_may_be_faster(new: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(keys(new))
    before = SetupState.from_json('{"state": "not_initialized"}')
    monkeypatch.setattr(InternalApi, "get_setup_state", lambda *_, **__: before)
    set_up(keys(new))
    assert may_come_in(keys(new))


def test_the_setup_outlives_the_server(new: EmbeddedServer) -> None:
    user = {"username": "somebody"}
    key = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    httpx.post(f"{new.endpoint}/api/v1/setup_lakefs", json=user | {"key": key}).raise_for_status()
    new.stop()
    with EmbeddedServer(new.data, is_set_up=False) as again:
        assert state(again) == "initialized"
        assert may_come_in(keys(again))
        main = Repository("new", again.client()).create("local://new").branch("main")
        assert main.commit("empty", allow_empty=True).get_commit().committer == "somebody"
