"""What the watchdog makes of what it sees, and what it leaves alone."""

from collections.abc import Callable
from unittest.mock import create_autospec

import pytest

from shared.errors import CancelledError
from shared.jobs import Job
from shared.ledger import Ledger
from shared.settings import WorkerSettings
from workers.process import watchdog as watchdog_module
from workers.process.heartbeat import Heartbeat
from workers.process.watchdog import ConsumerLiveness, Watchdog

DEAF_SECONDS = 15.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Part:
    """A part of a worker that gives signs of life when a test says so."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seen_at = clock.now

    def live(self) -> None:
        self.seen_at = self.clock.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog_module, "time", clock)
    return clock


@pytest.fixture
def part(clock: Clock) -> Part:
    return Part(clock)


@pytest.fixture
def liveness(clock: Clock, part: Part) -> ConsumerLiveness:
    liveness = ConsumerLiveness({"a slot": lambda: part.seen_at, "Celery": lambda: clock.now})
    liveness.look()
    return liveness


def pass_by(clock: Clock, liveness: ConsumerLiveness, seconds: int) -> float:
    """Look once a second."""
    silent = 0.0
    for _ in range(seconds):
        clock.now += 1
        _, silent = liveness.look()
    return silent


def test_a_part_that_lives_is_not_silent(
    clock: Clock, liveness: ConsumerLiveness, part: Part
) -> None:
    for _ in range(60):
        clock.now += 1
        part.live()
        assert liveness.look()[1] == 0
    assert liveness.consuming
    assert pass_by(clock, liveness, 4) == 4
    assert liveness.consuming, "a second more or less says nothing"
    assert pass_by(clock, liveness, 4) == 8
    assert liveness.look()[0] == "a slot"


def test_a_part_that_is_silent_is_reported(clock: Clock, liveness: ConsumerLiveness) -> None:
    assert pass_by(clock, liveness, 8) == 8
    assert not liveness.consuming


def test_the_time_in_which_the_process_slept_does_not_count(
    clock: Clock, liveness: ConsumerLiveness
) -> None:
    clock.now += 3600
    assert liveness.look()[1] < DEAF_SECONDS


def watchdog(
    liveness: ConsumerLiveness,
    heartbeat: Heartbeat | None = None,
    *,
    redis_answers: Callable[[], bool] = lambda: True,
) -> Watchdog:
    ledger = create_autospec(Ledger)
    return Watchdog(
        ledger,
        heartbeat or Heartbeat("cpu@a", ledger, 1, lambda: None),
        liveness,
        WorkerSettings(deaf_seconds=DEAF_SECONDS, stuck_seconds=5),
        redis_answers=redis_answers,
        leave=lambda _: None,
    )


def test_a_worker_with_a_part_that_does_nothing_leaves(
    clock: Clock, liveness: ConsumerLiveness
) -> None:
    dog = watchdog(liveness)
    seen = []
    for _ in range(20):
        clock.now += 1
        seen.append(dog.look())
    assert seen.index("a slot has done nothing for 15 s") == 14


def test_a_redis_that_is_away_makes_nobody_leave(clock: Clock, liveness: ConsumerLiveness) -> None:
    dog = watchdog(liveness, redis_answers=lambda: False)
    for _ in range(60):
        clock.now += 1
        assert dog.look() is None


@pytest.mark.parametrize("away_seconds", [5, 14, 15, 29, 30, 60])
def test_a_part_has_time_to_connect_once_redis_answers_again(
    clock: Clock, liveness: ConsumerLiveness, part: Part, away_seconds: int
) -> None:
    back_at = clock.now + away_seconds
    dog = watchdog(liveness, redis_answers=lambda: clock.now >= back_at)
    while clock.now < back_at + 8:
        clock.now += 1
        assert dog.look() is None
    part.live()
    assert dog.look() is None


def test_a_run_whose_end_waits_for_redis_is_not_stuck(liveness: ConsumerLiveness) -> None:
    heartbeat = Heartbeat("cpu@a", create_autospec(Ledger), 1, lambda: None)
    running = heartbeat.watch(create_autospec(Job, id="j"))
    running.cancel.cancel(CancelledError("the client cancelled the job"))
    running.cancel._cancelled_at -= 3600
    running.over = True
    dog = watchdog(liveness, heartbeat)
    assert dog.look() is None
    running.over = False
    assert dog.look() == "work that does not stop: j"
