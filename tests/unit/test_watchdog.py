"""What the watchdog makes of what it sees, and what it leaves alone."""

from types import SimpleNamespace

import pytest

from shared.ledger import Ledger
from shared.settings import LedgerSettings, WorkerSettings
from workers import hearing as hearing_module
from workers.hearing import Hearing
from workers.heartbeat import Heartbeat
from workers.watchdog import Watchdog

DEAF_SECONDS = 15.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Consumer:
    """As much of Celery's consumer as its hearing looks at."""

    def __init__(self) -> None:
        self.channel = SimpleNamespace(_brpop_sent_at=None)
        self.task_consumer = SimpleNamespace(channel=self.channel)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hearing_module, "time", clock)
    return clock


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def hearing(clock: Clock, consumer: Consumer) -> Hearing:
    hearing = Hearing(slots=1)
    hearing.attach(consumer)
    return hearing


def pass_by(clock: Clock, hearing: Hearing, seconds: int) -> float:
    """Look once a second."""
    silent = 0.0
    for _ in range(seconds):
        clock.now += 1
        silent = hearing.look()
    return silent


def test_a_consumer_that_asks_is_heard(clock: Clock, hearing: Hearing, consumer: Consumer) -> None:
    for _ in range(60):
        consumer.channel._brpop_sent_at = clock.now
        assert pass_by(clock, hearing, 1) == 0
    assert hearing.consuming
    assert pass_by(clock, hearing, 4) == 4
    assert hearing.consuming, "a second more or less says nothing"
    assert pass_by(clock, hearing, 4) == 8
    assert not hearing.consuming


def test_a_consumer_without_a_connection_is_silent(clock: Clock, hearing: Hearing) -> None:
    hearing.attach(SimpleNamespace(task_consumer=None))
    assert pass_by(clock, hearing, 10) == 10


def test_nobody_asks_while_all_slots_are_taken(clock: Clock, hearing: Hearing) -> None:
    with hearing.occupied():
        assert pass_by(clock, hearing, 60) == 0
    assert pass_by(clock, hearing, 3) == 3


def test_the_time_in_which_the_process_slept_does_not_count(clock: Clock, hearing: Hearing) -> None:
    clock.now += 3600
    assert hearing.look() < DEAF_SECONDS


def watchdog(hearing: Hearing, *, broker_answers: bool) -> Watchdog:
    ledger = Ledger(SimpleNamespace(), LedgerSettings())  # type: ignore[arg-type] # never asked
    return Watchdog(
        ledger,
        Heartbeat(ledger, 1, lambda _: None),
        hearing,
        WorkerSettings(deaf_seconds=DEAF_SECONDS),
        broker_answers=lambda: broker_answers,
        leave=lambda _: None,
    )


def test_a_deaf_worker_leaves(clock: Clock, hearing: Hearing) -> None:
    dog = watchdog(hearing, broker_answers=True)
    seen = []
    for _ in range(20):
        clock.now += 1
        seen.append(dog.look())
    assert seen.index("a consumer that has asked the broker for nothing for 15 s") == 14


def test_a_broker_that_is_away_makes_nobody_deaf(clock: Clock, hearing: Hearing) -> None:
    dog = watchdog(hearing, broker_answers=False)
    for _ in range(60):
        clock.now += 1
        assert dog.look() is None
