"""Fixtures that every kind of test may ask for."""

import uuid
from collections.abc import Callable, Iterator

import pytest
import redis
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadFileScheduling

from shared.ledger import Ledger, connect
from shared.settings import LedgerSettings, RedisSettings

pytest_plugins = ["tests.servers"]

#: To start a platform takes longer than most tests of it.
SHARE_A_PLATFORM = {
    f"tests/e2e/test_{name}.py" for name in ("client", "journey", "recovery", "tasks")
}

# How long one example takes says more of the machine than of the code.
hypothesis_settings.register_profile("any-machine", deadline=None)
hypothesis_settings.load_profile("any-machine")


class PlatformTogether(LoadFileScheduling):  # type: ignore[misc] # xdist is not typed
    """Gives a file's tests to one process, and all who share a platform to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "platform" if file in SHARE_A_PLATFORM else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> PlatformTogether:
    """Have tests distributed by what they share."""
    return PlatformTogether(config, log)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes what a test measured, to be shown when all tests have run."""
    return lambda text: request.node.user_properties.append(("figure", text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    figures = [
        text
        for report in reports
        if report.when == "call"
        for name, text in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("measured")
    for text in figures:
        terminalreporter.write_line(text)


@pytest.fixture
def redis_client(redis_settings: RedisSettings) -> Iterator["redis.Redis"]:
    """A client of the session's Redis."""
    client = connect(redis_settings)
    yield client
    client.close()


@pytest.fixture
def ledger_settings() -> LedgerSettings:
    """Settings of a ledger that nobody else uses, with times that tests can wait for."""
    return LedgerSettings(
        prefix=f"test-{uuid.uuid4().hex}",
        lease_seconds=1,
        reconcile_seconds=0.1,
        backoff_seconds=0.1,
    )


@pytest.fixture
def ledger(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Ledger:
    """An empty ledger."""
    return Ledger(redis_client, ledger_settings)
