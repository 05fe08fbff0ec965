"""What waits is bounded, by queue, by submitter and in bytes; what is too much is a 429."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient

from api.app import create_app
from shared.errors import ConflictError, ErrorInfo, InvalidInputError, QueueFullError
from shared.jobs import Job, JobKind, JobState
from shared.ledger import JobEvent, Ledger
from shared.settings import LedgerSettings, MLflowSettings, RedisSettings, Settings
from tests import claims
from tests.claims import claim_next, download
from tests.processes import free_port, wait_until

Bounded = Callable[..., Ledger]


@pytest.fixture
def bounded(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Bounded:
    """A ledger with these bounds."""
    return lambda **bounds: Ledger(redis_client, ledger_settings.model_copy(update=bounds))


def claim(ledger: Ledger, job: Job) -> Job:
    return claims.claim(ledger, job.id)


def test_a_full_queue_takes_no_more_until_a_job_leaves_it(bounded: Bounded) -> None:
    ledger = bounded(max_queued=2)
    first, _ = (ledger.accept(download("m"))[0] for _ in range(2))
    with pytest.raises(QueueFullError, match="'downloads' holds 2 of at most 2") as refused:
        ledger.accept(download("m"))
    assert (refused.value.specific_code, refused.value.retry_after_seconds) == ("queue_full", 5)
    ledger.accept(download("m", queue="inference"))
    claim(ledger, first)
    ledger.accept(download("m"))
    assert ledger.counts().total(JobEvent.REFUSED, JobKind.DOWNLOAD, "downloads") == 1


def test_a_batch_is_taken_whole_or_not_at_all(bounded: Bounded) -> None:
    ledger = bounded(max_queued=3)
    ledger.accept(download("m"))
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="")
    with pytest.raises(QueueFullError):
        ledger.accept(parent, [download(f"m{number}") for number in range(3)], "k")
    assert len(ledger.page()[0]) == 1
    with pytest.raises(InvalidInputError, match="now or ever") as refused:
        ledger.accept(parent, [download(f"m{number}") for number in range(4)])
    assert refused.value.specific_code == "too_large"
    assert len(ledger.accept(parent, [download("m1"), download("m2")], "k")[0].children) == 2


def test_a_repeated_submit_of_an_accepted_job_is_never_refused(bounded: Bounded) -> None:
    ledger = bounded(max_queued=1)
    job = ledger.accept(download("m"), idempotency_key="k")[0]
    assert ledger.accept(download("m"), idempotency_key="k") == (job, False)


def test_an_idempotency_key_is_its_submitters_own(ledger: Ledger) -> None:
    jobs = [ledger.accept(download("m", submitter=name), (), "k") for name in ("a", "b")]
    assert jobs[0][0].id != jobs[1][0].id
    assert jobs[1][1], "another's key is no key of mine"


def test_a_submitter_has_a_quota_over_all_queues(bounded: Bounded) -> None:
    ledger = bounded(max_queued_per_submitter=2)
    ledger.accept(download("m", submitter="a"))
    job = ledger.accept(download("m", submitter="a", queue="inference"))[0]
    with pytest.raises(QueueFullError) as refused:
        ledger.accept(download("m", submitter="a"))
    assert refused.value.specific_code == "submitter_queue_full"
    ledger.accept(download("m", submitter="b"))
    for _ in range(3):
        ledger.accept(download("m"))
    ledger.cancel(job.id)
    ledger.accept(download("m", submitter="a"))


def test_requests_are_bounded_in_bytes_until_they_end(bounded: Bounded) -> None:
    ledger = bounded(max_request_bytes=1000)
    job = ledger.accept(download("m" * 600))[0]
    running = claim(ledger, job)
    with pytest.raises(QueueFullError) as refused:
        ledger.accept(download("m" * 600))
    assert refused.value.specific_code == "request_bytes_full"
    ledger.requeue(running)
    running = claim(ledger, job)
    assert ledger.counts().request_bytes == len('{"model_name":"') + 600 + len('"}')
    ledger.finish(running, JobState.SUCCEEDED, result={})
    assert ledger.counts().request_bytes == 0
    ledger.accept(download("m" * 600))


def test_a_retry_needs_room_too(bounded: Bounded) -> None:
    ledger = bounded(max_queued=1)
    job = ledger.accept(download("m"))[0]
    ledger.finish(claim(ledger, job), JobState.FAILED, error=ErrorInfo(code="x", detail="x"))
    ledger.accept(download("m"))
    with pytest.raises(QueueFullError):
        ledger.revive(job.id)
    assert ledger.get(job.id).state is JobState.FAILED


@pytest.fixture
def moved(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> Iterator[tuple[Ledger, Callable[[int], int]]]:
    """A ledger whose clock the test moves, by seconds."""
    clock = f"{ledger_settings.prefix}-clock"
    bounds = {"max_queued": 10, "retention_seconds": 100, "lease_seconds": 1000}
    redis_client.set(clock, 1_000_000)
    yield (
        Ledger(
            redis_client,
            ledger_settings.model_copy(update=bounds),
            clock=f"tonumber(redis.call('GET', '{clock}'))",
        ),
        lambda seconds: redis_client.incrby(clock, seconds * 1000),
    )
    redis_client.delete(clock)


def test_retry_after_follows_the_pace_at_which_jobs_leave(
    moved: tuple[Ledger, Callable[[int], int]],
) -> None:
    ledger, advance = moved
    jobs = [ledger.accept(download("m"))[0] for _ in range(10)]
    for job in jobs[:4]:
        advance(3)
        claim(ledger, job)
    for _ in range(4):
        ledger.accept(download("m"))
    with pytest.raises(QueueFullError) as refused:
        ledger.accept(download("m"))
    assert refused.value.retry_after_seconds == 3
    advance(20)
    with pytest.raises(QueueFullError) as refused:
        ledger.accept(download("m"))
    assert refused.value.retry_after_seconds == 20, "nothing has left for that long"


def test_a_job_that_does_not_start_in_time_fails(
    moved: tuple[Ledger, Callable[[int], int]],
) -> None:
    ledger, advance = moved
    started, looked_at = (
        ledger.accept(download("m", start_within_seconds=10))[0] for _ in range(2)
    )
    assert ledger.requeue(claim(ledger, started), delay_seconds=20).kept
    advance(10)
    assert ledger.reconcile().past_deadline == 1
    claimed = ledger.accept(download("m", start_within_seconds=10))[0]
    advance(10)
    assert claim_next(ledger, "cpu@a", "downloads") is None
    for job in (looked_at, claimed):
        error = ledger.get(job.id).error
        assert error is not None
        assert error.code == "start_deadline_exceeded"
    ledger.reconcile()
    claim(ledger, started)  # what has started once may go on


def test_a_batch_outlives_no_part_but_those_that_are_forgotten_later(
    moved: tuple[Ledger, Callable[[int], int]],
) -> None:
    ledger, advance = moved
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="")
    children = [download("bad"), download("good")]
    ledger.accept(parent, children)
    bad, good = (claim(ledger, ledger.get(child.id)) for child in children)
    ledger.finish(bad, JobState.FAILED, error=ErrorInfo(code="x", detail="x"))
    advance(101)
    assert ledger.renew("cpu@a", [good]) == {good.id: "ok"}
    assert ledger.reconcile().expired == 0, "the batch still asks for its part"
    advance(50)
    ledger.finish(good, JobState.SUCCEEDED, result={})
    assert ledger.get(parent.id).state is JobState.FAILED
    advance(51)
    assert ledger.reconcile().expired == 1
    with pytest.raises(ConflictError, match="are forgotten"):
        ledger.revive(parent.id)
    advance(50)
    ledger.reconcile()
    assert ledger.page() == ([], None)


# ── through the front ────────────────────────────────────────────────────────


@pytest.fixture
def client(redis_settings: RedisSettings, ledger_settings: LedgerSettings) -> Iterator[TestClient]:
    """A front whose queues hold two jobs."""
    nobody = MLflowSettings(tracking_uri=f"http://127.0.0.1:{free_port()}")
    ledger = ledger_settings.model_copy(update={"max_queued": 2})
    with TestClient(
        create_app(Settings(redis=redis_settings, ledger=ledger, mlflow=nobody))
    ) as client:
        yield client


def submit(client: TestClient, **body: Any) -> Any:
    return client.post("/models/download", json={"model_name": "org/m"} | body)


def test_the_front_answers_429_and_says_when_to_come_again(client: TestClient) -> None:
    accepted = [submit(client).json() for _ in range(2)]
    assert [job["position"] for job in accepted] == [0, 1]
    refused = submit(client)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) == 5
    assert refused.json()["code"] == "queue_full"
    assert "downloads" in refused.json()["detail"]
    client.post(f"/jobs/{accepted[0]['job_id']}/cancel").raise_for_status()
    assert submit(client).status_code == 202
    again = client.post(f"/jobs/{accepted[0]['job_id']}/retry")
    assert again.status_code == 429


def test_the_front_passes_a_start_deadline_on(client: TestClient, ledger: Ledger) -> None:
    item = {"model_name": "org/a"}
    items = [item, {"model_name": "org/b", "start_within_seconds": 0.001}]
    body = {"downloads": items, "start_within_seconds": 60}
    parent = client.post("/models/batch_download", json=body).json()
    wait_until(lambda: ledger.reconcile().past_deadline, what="one is over")
    states = {
        job["request"]["model_name"]: (job["state"], job["request"]["start_within_seconds"])
        for job in client.get("/jobs", params={"parent_id": parent["job_id"]}).json()["jobs"]
    }
    assert states == {"org/a": ("queued", 60), "org/b": ("failed", 0.001)}
    assert submit(client, start_within_seconds=0).status_code == 422
