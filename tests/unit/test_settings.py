"""Settings that cannot work are refused at the start, each in one line that names it."""

import pytest

from shared.settings import RedisSettings, Settings, exit_on_wrong_settings


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
@pytest.mark.parametrize("name", ["REDIS_URL", "REDIS_BROKER_URL"])
def test_an_address_of_redis_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, reason: str
) -> None:
    monkeypatch.setenv(name, url)
    said = refusal()
    assert said.startswith(f"{name}: ")
    assert reason in said
    assert "\n" not in said
    assert "pass-word" not in said


@pytest.mark.parametrize(
    "url", ["redis://h:6379/0", "rediss://user:p%2Cw@h/1", "unix:///run/redis.sock?db=0"]
)
def test_one_server_is_accepted(url: str) -> None:
    assert RedisSettings.model_validate({"url": url}).url.get_secret_value() == url


def test_every_wrong_setting_of_a_group_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_LEASE_SECONDS", "soon")
    monkeypatch.setenv("LEDGER_MAX_ATTEMPTS", "0")
    assert [line.partition(":")[0] for line in refusal().splitlines()] == [
        "LEDGER_LEASE_SECONDS",
        "LEDGER_MAX_ATTEMPTS",
    ]
