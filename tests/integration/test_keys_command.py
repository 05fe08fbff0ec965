"""`lifecycle keys` on a Redis, and a front that must not start without any."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from client.cli import app
from shared.settings import LedgerSettings, RedisSettings
from tests.processes import free_port, listens, start, stop, wait_until

Keys = Callable[..., Result]
ANYWHERE = "0.0.0.0"  # noqa: S104 - what is tested is that it takes keys


@pytest.fixture
def env(
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Settings as an operator gives them."""
    monkeypatch.setenv("REDIS_URL", redis_settings.url.get_secret_value())
    monkeypatch.setenv("LEDGER_PREFIX", ledger_settings.prefix)
    monkeypatch.setenv("LIFECYCLE_DATA_DIR", str(tmp_path))


@pytest.fixture
def keys(env: None) -> Keys:
    """Run `lifecycle keys`; it must end with the status said."""

    def run(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(app, ["keys", *arguments])
        assert result.exit_code == status, result.output
        return result

    return run


def test_a_key_is_printed_once_listed_and_revoked(keys: Keys) -> None:
    assert "no keys" in keys("ls").stdout
    text = keys("create", "--name", "Ann [laptop]", "--role", "submitter").stdout.strip()
    assert re.fullmatch(r"lc_[0-9a-f]{12}_[0-9a-f]{64}", text), "nothing but the key, for scripts"
    key_id = text.split("_")[1]
    listed = keys("ls").stdout
    assert key_id in listed
    assert "[laptop]" in listed
    assert text.rpartition("_")[2] not in listed
    assert "is revoked" in keys("revoke", key_id).stdout
    assert "revoked" in keys("ls").stdout


def test_json_is_for_programs(keys: Keys) -> None:
    made = json.loads(
        keys(
            *("create", "--name", "ci", "--role", "admin", "--expires-days", "1.5", "--json")
        ).stdout
    )
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=1) < left <= timedelta(days=1.5)
    listed = json.loads(keys("ls", "--json").stdout)
    assert listed == [{name: value for name, value in made.items() if name != "key"}]
    assert "digest" not in made
    assert json.loads(keys("revoke", made["id"], "--json").stdout)["state"] == "revoked"


def test_expired_key_says_so(keys: Keys) -> None:
    keys("create", "--name", "x", "--role", "viewer", "--expires-days", "0")
    assert json.loads(keys("ls", "--json").stdout)[0]["state"] == "expired"


def test_what_cannot_be_done_is_told_by_the_exit_status(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no API key 'nobody'" in keys("revoke", "nobody", status=4).stderr
    for wrong in (("--name", ""), ("--name", "two\nlines"), ("--role", "king")):
        options = {"--name": "x", "--role": "viewer"} | dict([wrong])
        keys("create", *(part for option in options.items() for part in option), status=2)
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    assert "Redis does not answer" in keys("ls", status=3).stderr


def front(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api"],
        env={**os.environ, "API_PORT": str(free_port()), **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_front_without_keys_does_not_start_beyond_loopback(
    env: None,
) -> None:
    refused = front(API_HOST=ANYWHERE)
    assert refused.returncode != 0
    for said in ("beyond loopback: there are no API keys", "keys create", "API_ALLOW_OPEN"):
        assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    unknown = front(API_HOST=ANYWHERE, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert unknown.returncode != 0
    assert "cannot be told" in unknown.stderr


def test_a_key_of_the_operator_that_is_too_short_is_refused_and_not_shown(env: None) -> None:
    refused = front(API_ADMIN_KEY="hunter2-hunter2")
    assert refused.returncode != 0
    assert refused.stderr.startswith("API_ADMIN_KEY: ")
    assert "hunter2" not in refused.stderr


@pytest.mark.parametrize("how", ["a key", "API_REQUIRE_KEYS", "API_ALLOW_OPEN", "API_ADMIN_KEY"])
def test_a_front_starts_beyond_loopback_when_that_is_safe_or_wanted(
    keys: Keys, tmp_path: Path, how: str
) -> None:
    env = {"API_HOST": ANYWHERE, "API_PORT": str(free_port())}
    if how == "a key":
        keys("create", "--name", "x", "--role", "viewer")
    else:
        env[how] = "the key that I bring" if how == "API_ADMIN_KEY" else "true"
    process = start([sys.executable, "-m", "api"], log=tmp_path / "api.log", env=env)
    try:
        url = f"http://127.0.0.1:{env['API_PORT']}"
        wait_until(lambda: listens(int(env["API_PORT"])), what="the front listens")
        status = httpx.get(f"{url}/jobs", trust_env=False).status_code
        assert status == (200 if how == "API_ALLOW_OPEN" else 401)
        assert httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200
    finally:
        stop(process)
