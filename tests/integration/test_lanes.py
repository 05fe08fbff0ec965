"""Submitters take turns: Celery knows of a few jobs of each, and of the next as these start."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.jobs import JobKind, JobState
from shared.ledger import Hint, Ledger, Placement, Presence, connect
from shared.settings import LedgerSettings, RedisSettings
from tests.integration.workplace import Workplace, download
from tests.processes import wait_until
from workers.lost_hosts import LostHosts
from workers.reconciler import Reconciler

WINDOW, SLOTS = 8, 4
MANY = 5000


class Broker:
    """Celery's queue: the messages in the order in which they came."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def publish(self, hints: Sequence[Hint]) -> None:
        self.messages += [hint.id for hint in hints]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def hinting(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, broker: Broker
) -> Iterator[Ledger]:
    """A ledger that tells the broker, and has time for thousands on a busy machine."""
    client = connect(redis_settings.model_copy(update={"timeout_seconds": 60}))
    yield Ledger(client, ledger_settings, broker.publish)
    client.close()


def batch(ledger: Ledger, count: int, **changes: object) -> list[str]:
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="", **changes)
    children = [download(f"org/m{number}", **changes) for number in range(count)]
    return list(ledger.accept(parent, children)[0].children)


def test_one_stands_behind_a_window_and_not_behind_thousands(
    hinting: Ledger, broker: Broker
) -> None:
    many = batch(hinting, MANY, submitter="a")
    one = hinting.accept(download("m", submitter="b"))[0].id
    assert broker.messages == [*many[:WINDOW], one]
    started = []
    while one not in started:
        started.append(broker.messages.pop(0))
        assert hinting.claim(started[-1], "cpu@a") is not None
    assert started == [*many[:WINDOW], one]
    assert broker.messages == many[WINDOW : 2 * WINDOW], "each that left let the next one in"


def test_the_more_urgent_enter_first_and_priorities_have_windows_of_their_own(
    hinting: Ledger, broker: Broker
) -> None:
    batch(hinting, WINDOW + 2, priority=5)
    more_urgent = hinting.accept(download("m", priority=4))[0].id
    urgent = hinting.accept(download("m", priority=0))[0].id
    assert more_urgent not in broker.messages
    assert urgent == broker.messages[-1]
    hinting.cancel(broker.messages[0])
    assert broker.messages[-1] == more_urgent


def test_a_cancelled_batch_lets_the_next_jobs_in_and_none_of_its_own(
    hinting: Ledger, broker: Broker
) -> None:
    parent = hinting.get(batch(hinting, 30)[0]).parent_id
    others = batch(hinting, 3)
    assert parent is not None
    hinting.cancel(parent)
    assert broker.messages[WINDOW:] == others


def test_a_job_waits_for_its_backoff_outside_the_window(hinting: Ledger, broker: Broker) -> None:
    first, *_ = batch(hinting, WINDOW + 1)
    job = hinting.claim(first, "cpu@a")
    assert job is not None
    assert hinting.requeue(job, delay_seconds=60)
    assert first not in broker.messages[1:]
    assert first not in [hint.id for hint in hinting.reconcile().hints]


@pytest.fixture
def place(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, tmp_path: Path
) -> Iterator[Workplace]:
    """A real Celery, and a worker with the usual four slots."""
    prefix = ledger_settings.prefix
    quick = LedgerSettings(prefix=prefix, republish_seconds=0.5)
    place = Workplace(redis_settings, quick, tmp_path, SCRIPTED_SECONDS="0.05")
    yield place
    place.close()


def test_with_a_real_worker_one_starts_soon_after_thousands(
    place: Workplace, figure: Callable[[str], None]
) -> None:
    many = batch(place.ledger, MANY, submitter="a")
    assert place.broker.llen("downloads\x06\x163") == WINDOW
    place.start()
    wait_until(lambda: place.job(many[0]).state.terminal, what="the first has ended")
    one = place.submit("m", submitter="b")
    hinted_at = datetime.now(UTC)
    (job,) = place.ended(one)
    assert job.started_at is not None
    others = [started for other in many[:500] if (started := place.job(other).started_at)]
    between = [started for started in others if hinted_at < started < job.started_at]
    figure(f"fairness: behind {MANY} jobs of another, {len(between)} of them started before it")
    assert others[0] < hinted_at, "they were at it"
    assert len(between) <= WINDOW + SLOTS
    parent = place.job(many[0]).parent_id
    assert parent is not None
    place.ledger.cancel(parent)


def test_flower_sees_the_job_by_its_own_id_and_name(place: Workplace) -> None:
    with place.queue._app.connection_for_read() as connection:
        job_id = place.submit("org/model")
        message = connection.SimpleQueue("downloads").get(timeout=5)
    assert (message.headers["id"], message.headers["task"]) == (job_id, "models.download")
    assert message.headers["argsrepr"] == "('org/model',)"


def test_lost_hints_are_published_again_and_held_ones_are_not(place: Workplace) -> None:
    waiting = batch(place.ledger, 3 * WINDOW)
    placement = Placement(place.client, place.settings)
    lost_hosts = LostHosts(place.ledger, Presence(place.client, place.settings), placement, 60)
    reconciler = Reconciler(place.ledger, place.queue, lost_hosts, place.settings)

    def looked_at() -> bool:
        return bool(reconciler.reconcile().hints)

    wait_until(looked_at, what="the window is due")
    assert place.broker.llen("downloads\x06\x163") == WINDOW, "none was lost"
    place.broker.flushdb()
    # What is not ours stands in nobody's way.
    place.broker.lpush("downloads", "not json", "[]", '{"headers": {}}')
    wait_until(looked_at, what="the window is due again")
    assert place.queue.hinted("downloads") == set(waiting[:WINDOW])
    assert place.broker.llen("downloads\x06\x163") == WINDOW


@pytest.mark.timeout(200)
def test_everything_is_done_after_the_broker_was_flushed(place: Workplace) -> None:
    waiting = batch(place.ledger, 5 * WINDOW)
    place.start()
    wait_until(lambda: place.job(waiting[0]).state.terminal, what="the first has ended")
    place.broker.flushdb()
    assert {job.state for job in place.ended(*waiting)} == {JobState.SUCCEEDED}
