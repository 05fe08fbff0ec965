"""The ledger keeps its promises on a real Redis."""

import time

import pytest
import redis

from shared.errors import ConflictError, ErrorInfo, IdempotencyConflictError, NotFoundError
from shared.jobs import Job, JobKind, JobState, Progress
from shared.ledger import Filter, Ledger, NewJob, TransitionEpoch
from shared.ledger.schema import celery_queue
from shared.settings import LedgerSettings
from tests import claims
from tests.claims import claim_next, entries, want
from tests.processes import wait_until


def new_job(**changes: object) -> NewJob:
    fields = {
        "kind": JobKind.DOWNLOAD,
        "request": {"model_name": "org/model"},
        "queue": "downloads",
        "model": "org/model",
        "max_attempts": 3,
    }
    return NewJob(**(fields | changes))  # type: ignore[arg-type]


def claim(ledger: Ledger, job: Job, owner: str = "cpu@a", **how: object) -> Job:
    return claims.claim(ledger, job.id, owner, **how)


def accept(ledger: Ledger, **changes: object) -> Job:
    return ledger.accept(new_job(**changes))[0]


def test_accepted_job_is_queued_and_listed(ledger: Ledger) -> None:
    job = accept(ledger)
    assert job.state is JobState.QUEUED
    assert ledger.get(job.id) == job
    assert ledger.page() == ([job], None)
    assert ledger.queued("downloads") == 1


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def test_a_claimed_job_knows_the_last_transition_of_a_stage(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    epoch = TransitionEpoch(redis_client, ledger_settings)
    assert claim(ledger, accept(ledger)).epoch == epoch.now()
    epoch.advance()
    assert claim(ledger, accept(ledger)).epoch == epoch.now() == 1


def test_unknown_job_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="no-such"):
        ledger.get("no-such")


def test_same_idempotency_key_gives_the_same_job(ledger: Ledger) -> None:
    first, is_new = ledger.accept(new_job(), idempotency_key="k")
    again, is_new_again = ledger.accept(new_job(), idempotency_key="k")
    assert (is_new, is_new_again) == (True, False)
    assert again == first
    with pytest.raises(IdempotencyConflictError):
        ledger.accept(new_job(request={"model_name": "other"}), idempotency_key="k")


def test_a_job_is_claimed_once(ledger: Ledger) -> None:
    job = accept(ledger)
    claimed = claim(ledger, job)
    assert claimed.state is JobState.RUNNING
    assert (claimed.attempts, claimed.fence, claimed.owner) == (1, 1, "cpu@a")
    assert claim_next(ledger, "cpu@b", "downloads") is None
    assert ledger.queued("downloads") == 0


def test_finish_ends_the_job_with_its_result(ledger: Ledger) -> None:
    job = claim(ledger, accept(ledger))
    assert ledger.finish(job, JobState.SUCCEEDED, result={"files": 2}).kept
    ended = ledger.get(job.id)
    assert (ended.state, ended.result) == (JobState.SUCCEEDED, {"files": 2})
    assert ended.finished_at is not None
    again = ledger.finish(job, JobState.SUCCEEDED, result={"files": 2})
    assert again.kept, "repeated after a lost reply"
    assert not ledger.finish(job, JobState.FAILED).kept, "an end is final"


def test_stale_fence_can_write_nothing(ledger: Ledger) -> None:
    stale = claim(ledger, accept(ledger))
    assert ledger.requeue(stale).kept
    current = claim(ledger, stale, "cpu@b")
    assert ledger.renew("cpu@a", [stale]) == {stale.id: "lost"}
    assert not ledger.report_progress(stale, Progress(completed=1))
    assert not ledger.report_text(stale, 1, "x")
    assert not ledger.finish(stale, JobState.FAILED).kept
    assert not ledger.requeue(stale).kept
    assert ledger.get(stale.id) == current.model_copy(update={"epoch": None})


def test_requeued_job_waits_for_its_backoff(ledger: Ledger) -> None:
    job = claim(ledger, accept(ledger))
    error = ErrorInfo(code="unavailable", detail="hub down", retryable=True)
    assert ledger.requeue(job, delay_seconds=0.3, error=error).kept
    assert claim_next(ledger, "cpu@b", "downloads") is None
    assert not entries(ledger, "downloads"), "no entry wakes a slot for it"
    assert ledger.get(job.id).error == error
    wait_until(
        lambda: ledger.reconcile() and entries(ledger, "downloads"),
        what="job is available again",
    )
    again = claim(ledger, job)
    assert (again.attempts, again.error) == (2, None)


def test_drained_job_keeps_its_attempt(ledger: Ledger) -> None:
    job = claim(ledger, accept(ledger))
    assert ledger.requeue(job, counts=False).kept
    assert claim(ledger, job).attempts == 1


def test_lost_lease_queues_the_job_and_then_fails_it_as_crashed(ledger: Ledger) -> None:
    job = accept(ledger)
    for crash in (1, 2):
        claim(ledger, job)
        wait_until(lambda: ledger.reconcile().lost_leases, what="lease is lost")
        assert ledger.get(job.id).state is JobState.QUEUED
        assert ledger.get(job.id).crashes == crash
    assert claim_next(ledger, "cpu@b", "downloads") is None, "after two crashes only alone"
    wait_until(
        lambda: ledger.reconcile() and entries(ledger, "downloads:alone"),
        what="its backoff is over",
    )
    claim(ledger, job, alone=True)
    wait_until(lambda: ledger.reconcile().crashed, what="job is given up")
    ended = ledger.get(job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code == "crashed"


def test_heartbeat_keeps_the_lease(ledger: Ledger) -> None:
    job = claim(ledger, accept(ledger))
    before = ledger.get(job.id).lease_until
    assert before is not None

    def later() -> bool:
        assert ledger.renew("cpu@a", [job]) == {job.id: "ok"}
        assert ledger.reconcile().lost_leases == 0
        lease_until = ledger.get(job.id).lease_until
        assert lease_until is not None
        return (lease_until - before).total_seconds() > 1.5

    wait_until(later, what="lease outlives its first length")


def test_each_job_that_may_start_has_one_entry_in_the_list_of_its_queue(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    first, _, third = (accept(ledger) for _ in range(3))
    assert entries(ledger, "downloads") == 3
    ledger.cancel(third.id)
    assert entries(ledger, "downloads") == 2
    redis_client.rpop(celery_queue(ledger_settings, "downloads"))
    ledger.reconcile()
    assert entries(ledger, "downloads") == 2, "the slot that took one died"
    redis_client.delete(celery_queue(ledger_settings, "downloads"))
    claim(ledger, first)
    assert entries(ledger, "downloads") == 1, "the list was deleted"
    redis_client.lpush(celery_queue(ledger_settings, "downloads"), "not json", "{}")
    ledger.reconcile()
    assert entries(ledger, "downloads") == 1


def test_deadline_ends_a_queued_job(ledger: Ledger) -> None:
    job = accept(ledger, lifetime_seconds=0.1)
    wait_until(lambda: ledger.reconcile().past_deadline, what="deadline")
    error = ledger.get(job.id).error
    assert error is not None
    assert error.code == "deadline_exceeded"


def test_a_claim_holds_redis_for_a_few_late_jobs_only(ledger: Ledger) -> None:
    late = [accept(ledger, lifetime_seconds=0.001) for _ in range(60)]
    time.sleep(0.01)
    job = accept(ledger)
    first = ledger.claim(want("cpu@a", job.queue))
    assert (first.jobs, first.wait_seconds) == ((), 0), "the slot asks again at once"
    assert ledger.queued(job.queue) > 1
    while not (claimed := ledger.claim(want("cpu@a", job.queue)).jobs):
        pass
    assert claimed[0].id == job.id
    assert {ledger.get(each.id).state for each in late} == {JobState.FAILED}


def test_cancel_queued_running_and_ended(ledger: Ledger) -> None:
    running, queued = claim(ledger, accept(ledger)), accept(ledger)
    assert ledger.cancel(queued.id).state is JobState.CANCELLED
    assert ledger.cancel(running.id).state is JobState.RUNNING
    assert ledger.renew("cpu@a", [running]) == {running.id: "cancel"}
    assert ledger.requeue(running).kept, "an interrupted job that was to be cancelled ends"
    assert ledger.get(running.id).state is JobState.CANCELLED
    with pytest.raises(ConflictError):
        ledger.cancel(queued.id)


def test_failed_job_is_revived_with_fresh_attempts(ledger: Ledger) -> None:
    job = claim(ledger, accept(ledger))
    with pytest.raises(ConflictError):
        ledger.revive(job.id)
    ledger.finish(job, JobState.FAILED, error=ErrorInfo(code="x", detail="x"))
    revived = ledger.revive(job.id)
    assert (revived.state, revived.attempts, revived.error) == (JobState.QUEUED, 0, None)
    assert claim(ledger, job).fence == 2


def batch(ledger: Ledger, count: int) -> Job:
    children = [new_job(model=f"m{number}") for number in range(count)]
    parent = new_job(kind=JobKind.BATCH_DOWNLOAD, queue="", model="")
    return ledger.accept(parent, children)[0]


def test_parent_succeeds_with_its_last_child(ledger: Ledger) -> None:
    parent = batch(ledger, 3)
    assert parent.state is JobState.RUNNING
    for number, child in enumerate(parent.children):
        assert ledger.get(parent.id).state is JobState.RUNNING
        job = claim(ledger, ledger.get(child))
        ledger.finish(job, JobState.SUCCEEDED, result={"n": number, "none": [], "big": 2**60})
    ended = ledger.get(parent.id)
    assert ended.state is JobState.SUCCEEDED
    assert ended.progress == Progress(completed=3, total=3, unit="jobs")
    assert ended.result is not None
    results = [item["result"] for item in ended.result["succeeded"]]
    assert results == [{"n": number, "none": [], "big": 2**60} for number in range(3)]


def test_parent_says_which_child_failed(ledger: Ledger) -> None:
    parent = batch(ledger, 2)
    good, bad = (claim(ledger, ledger.get(child)) for child in parent.children)
    ledger.finish(bad, JobState.FAILED, error=ErrorInfo(code="not_found", detail="no m1"))
    ledger.finish(good, JobState.SUCCEEDED, result={})
    ended, error = ledger.get(parent.id), ledger.get(bad.id).error
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code == "batch_incomplete"
    assert [(line.field, line.detail) for line in ended.error.errors] == [("m1", "no m1")]
    assert ended.result is not None
    assert len(ended.result["succeeded"]) == 1
    assert error is not None
    assert [item["error"] for item in ended.result["failed"]] == [error.model_dump(mode="json")]

    ledger.revive(parent.id)
    assert ledger.get(parent.id).state is JobState.RUNNING
    ledger.finish(claim(ledger, bad), JobState.SUCCEEDED, result={})
    assert ledger.get(parent.id).state is JobState.SUCCEEDED


def test_cancelled_parent_cancels_its_children(ledger: Ledger) -> None:
    parent = batch(ledger, 3)
    running = claim(ledger, ledger.get(parent.children[0]))
    assert ledger.cancel(parent.id).state is JobState.RUNNING
    assert ledger.renew("cpu@a", [running]) == {running.id: "cancel"}
    ledger.finish(running, JobState.CANCELLED)
    assert ledger.get(parent.id).state is JobState.CANCELLED


def test_listing_filters_and_pages(ledger: Ledger) -> None:
    jobs = [accept(ledger, model=f"m{number % 2}") for number in range(10)]
    claim(ledger, jobs[0])
    newest, cursor = ledger.page(limit=4)
    assert ids(newest) == ids(jobs[:-5:-1])
    assert ids(ledger.page(limit=4, cursor=cursor)[0]) == ids(jobs[5:1:-1])
    assert ids(ledger.page(Filter(model="m0", state=JobState.QUEUED))[0]) == ids(jobs[8:0:-2])
    assert [job.id for job in ledger.page(Filter(state=JobState.RUNNING))[0]] == [jobs[0].id]
    assert ledger.page(Filter(kind=JobKind.INFER)) == ([], None)
    mine = accept(ledger, submitter="key-a")
    assert ledger.page(Filter(submitter="key-a")) == ([mine], None)
    assert ledger.page(Filter(submitter="key-b")) == ([], None)


def test_ended_jobs_are_forgotten(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    ledger = Ledger(redis_client, ledger_settings.model_copy(update={"retention_seconds": 0.1}))
    job = ledger.accept(new_job(submitter="key-a"), idempotency_key="k")[0]
    ledger.finish(claim(ledger, job), JobState.SUCCEEDED, result={})
    wait_until(lambda: ledger.reconcile().expired, what="job is forgotten")
    prefix = f"{ledger_settings.prefix}:2:"
    left = {
        key.removeprefix(prefix) for key in redis_client.scan_iter(f"{ledger_settings.prefix}*")
    }
    counted = {"counts", "runs", "queues", "drain", "request_bytes", "available", "pulse"}
    assert left == {*counted, "slots:cpu@a"}, "in as many fields as there are queues and slots"
    assert redis_client.pttl(f"{prefix}slots:cpu@a") > 0


def test_a_queued_job_knows_how_many_are_before_it(ledger: Ledger) -> None:
    first, second = accept(ledger), accept(ledger)
    urgent = accept(ledger, priority=0)
    assert (first.position, second.position, urgent.position) == (0, 1, 0)
    assert [job.position for job in ledger.page()[0]] == [0, 2, 1]
    assert claim(ledger, urgent).position is None
    assert ledger.get(second.id).position == 1


def test_a_piece_of_text_that_is_sent_again_is_told_once(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    job = claim(ledger, accept(ledger, streams=True))
    assert ledger.report_text(job, 1, "hm", "thinking")
    for number, text in [(2, "a"), (3, "b"), (3, "b"), (2, "a"), (4, "c")]:
        assert ledger.report_text(job, number, text)
    assert ledger.report_text(job, 1, "hm", "thinking")
    assert _streamed(redis_client, ledger_settings, job) == [
        'thinking {"text": "hm"}',
        'token {"text": "a"}',
        'token {"text": "b"}',
        'token {"text": "c"}',
    ]


def _streamed(client: "redis.Redis", settings: LedgerSettings, job: Job) -> list[str]:
    """Return a job's events, without those of its state."""
    entries = client.xrange(f"{settings.prefix}:2:events:{job.id}") or []
    told = [(fields["event"], fields["data"]) for _, fields in entries if fields]
    return [f"{event!s} {data!s}" for event, data in told if event not in {"state", "done"}]


def test_an_attempt_that_begins_after_text_was_sent_says_so_once(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    job = claim(ledger, accept(ledger, streams=True))
    assert ledger.requeue(job).kept, "nothing was sent yet: the second attempt restarts nothing"
    for text in ("a", "b"):
        job = claim(ledger, job)
        assert ledger.report_text(job, 1, text)
        stale, job = job, ledger.get(job.id)
        assert ledger.requeue(job, counts=False).kept
        assert not ledger.report_text(stale, 2, "of the attempt that was given back")
    job = claim(ledger, job)
    assert ledger.requeue(job, counts=False).kept, "the third attempt sends nothing"
    job = claim(ledger, job)
    assert ledger.report_text(job, 1, "c")
    assert _streamed(redis_client, ledger_settings, job) == [
        'token {"text": "a"}',
        'restart {"attempt":2}',
        'token {"text": "b"}',
        'restart {"attempt":2}',
        'token {"text": "c"}',
    ]


def test_a_claim_that_is_asked_again_restarts_the_text_once(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    job = claim(ledger, accept(ledger, streams=True))
    assert ledger.report_text(job, 1, "a")
    assert ledger.lose(job)
    again = want("gpu@b", "downloads")
    assert ledger.claim(again) == ledger.claim(again)
    streamed = _streamed(redis_client, ledger_settings, job)
    assert streamed == ['token {"text": "a"}', 'restart {"attempt":2}']


def test_a_job_that_is_tried_again_restarts_the_text_of_its_earlier_life(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    # Who reads on behind an event of before has its text still on the screen.
    job = claim(ledger, accept(ledger, streams=True))
    assert ledger.report_text(job, 1, "a")
    assert ledger.finish(job, JobState.FAILED).kept
    job = claim(ledger, ledger.revive(job.id))
    assert _streamed(redis_client, ledger_settings, job) == ['restart {"attempt":1}']


def test_ends_that_no_worker_tells_of_are_taken_once(ledger: Ledger) -> None:
    def started(model: str) -> Job:
        return claim(ledger, accept(ledger, model=model))

    never_ran = accept(ledger, model="a")
    ledger.cancel(never_ran.id)
    ended_by_its_worker = started("b")
    ledger.finish(ended_by_its_worker, JobState.SUCCEEDED, result={})
    waits_again = started("c")
    ledger.requeue(waits_again, counts=False)
    ledger.cancel(waits_again.id)
    stopped = started("d")
    ledger.cancel(stopped.id)
    ledger.requeue(stopped, counts=False)
    assert [job.id for job in ledger.take_untold()] == [waits_again.id, stopped.id]
    assert ledger.take_untold() == []
