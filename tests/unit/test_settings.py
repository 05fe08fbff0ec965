"""Settings that cannot work are refused at the start, each in one line that names it."""

from pathlib import Path

import pytest

from shared.settings import RedisSettings, Settings, exit_on_wrong_settings, removed_settings


def refusal() -> str:
    """Return what a process says that cannot start with these settings."""
    with pytest.raises(SystemExit) as ended, exit_on_wrong_settings():
        Settings()
    return str(ended.value.code)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://:pass-word@a:26379,b:26379/mymaster", "Redis Sentinel is not supported"),
        ("sentinel://:pass-word@a:26379", "Redis Sentinel is not supported"),
        ("redis+cluster://:pass-word@a:7000", "Redis Cluster is not supported"),
        ("rediss://:pass-word@a:7000,b:7000/0", "several servers is not supported"),
        ("sentinel+tls://a:26379;sentinel+tls://b:26379", "Redis Sentinel is not supported"),
        ("amqp://guest:pass-word@a", "must begin with one of redis://"),
        ("localhost:6379", "must begin with one of redis://"),
    ],
)
def test_an_address_of_redis_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    said = refusal()
    assert said.startswith("REDIS_URL: ")
    assert reason in said
    assert "\n" not in said
    assert "pass-word" not in said


@pytest.mark.parametrize(
    "url", ["redis://h:6379/0", "rediss://user:p%2Cw@h/1", "unix:///run/redis.sock?db=0"]
)
def test_one_server_is_accepted(url: str) -> None:
    assert RedisSettings.model_validate({"url": url}).url.get_secret_value() == url


def test_a_broker_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:pass-word@h:6379/0")
    monkeypatch.setenv("REDIS_BROKER_URL", "redis://:pass-word@h:6379/0")
    Settings()
    monkeypatch.setenv("REDIS_BROKER_URL", "redis://:pass-word@h:6379/1")
    said = refusal()
    assert said.startswith("REDIS_BROKER_URL: it names another database than REDIS_URL")
    assert "pass-word" not in said


def test_settings_of_earlier_versions_are_found_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert removed_settings() == []
    (tmp_path / ".env").write_text("ledger_window=4\nLEDGER_LEASE_SECONDS=5\n")
    (tmp_path / "base.yaml").write_text("ledger: {republish_seconds: 1}\n")
    monkeypatch.setenv("LIFECYCLE_CONFIG", "base.yaml")
    assert removed_settings() == ["LEDGER_WINDOW", "LEDGER_REPUBLISH_SECONDS"]
    (tmp_path / ".env").unlink()
    monkeypatch.setenv("LIFECYCLE_CONFIG", "nowhere.yaml")
    monkeypatch.setenv("LEDGER_WINDOW", "4")
    assert removed_settings() == ["LEDGER_WINDOW"]


def test_every_wrong_setting_of_a_group_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_LEASE_SECONDS", "soon")
    monkeypatch.setenv("LEDGER_MAX_ATTEMPTS", "0")
    assert [line.partition(":")[0] for line in refusal().splitlines()] == [
        "LEDGER_LEASE_SECONDS",
        "LEDGER_MAX_ATTEMPTS",
    ]
