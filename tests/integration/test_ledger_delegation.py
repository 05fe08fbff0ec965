"""A job that waits for children of its own goes on when they end, whatever happens meanwhile."""

import time
from dataclasses import replace

import pytest
import redis

from shared.jobs import Job, JobKind, JobState, Progress
from shared.ledger import Ledger, NewJob
from shared.settings import LedgerSettings
from tests.claims import claim, entries
from tests.processes import wait_until


def new_job(kind: JobKind = JobKind.DOWNLOAD, part: tuple[int, int] | None = None) -> NewJob:
    return NewJob(
        kind=kind, request={}, queue="q", model="m", max_attempts=3, submitter="key", part=part
    )


@pytest.fixture
def parent(ledger: Ledger) -> Job:
    """An import that runs."""
    return claim(ledger, ledger.accept(new_job(JobKind.IMPORT))[0].id)


@pytest.fixture
def child(ledger: Ledger, parent: Job) -> Job:
    """What the import waits for, queued."""
    new = new_job()
    assert ledger.delegate(parent, new).kept
    return ledger.get(new.id)


def state(ledger: Ledger, job: Job) -> JobState:
    return ledger.get(job.id).state


def test_a_job_waits_without_a_worker_until_its_child_ends(
    ledger: Ledger, parent: Job, child: Job
) -> None:
    waiting = ledger.get(parent.id)
    assert (waiting.state, waiting.owner, waiting.lease_until) == (JobState.RUNNING, None, None)
    assert (waiting.children, waiting.awaits) == ((child.id,), child.id)
    assert (child.state, child.parent_id) == (JobState.QUEUED, parent.id)
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={"n": 1})
    again = claim(ledger, parent.id)
    assert (again.attempts, again.awaits, again.started_at) == (1, child.id, parent.started_at)
    ledger.finish(again, JobState.SUCCEEDED, result={})
    assert state(ledger, parent) is JobState.SUCCEEDED


def test_who_waits_is_not_taken_for_lost(ledger: Ledger, parent: Job, child: Job) -> None:
    running = claim(ledger, child.id)
    wait_until(lambda: ledger.reconcile() and ledger.get(child.id).crashes, what="child is lost")
    assert state(ledger, parent) is JobState.RUNNING
    assert ledger.get(parent.id).crashes == 0
    assert not ledger.finish(running, JobState.SUCCEEDED).kept


def test_child_and_parent_may_start_at_once(ledger: Ledger, parent: Job) -> None:
    new = new_job()
    assert ledger.delegate(parent, new).kept
    assert entries(ledger, "q") == 1
    ledger.finish(claim(ledger, new.id), JobState.SUCCEEDED, result={})
    assert entries(ledger, "q") == 1
    claim(ledger, parent.id)


def test_a_heartbeat_on_its_way_gives_a_waiting_job_no_lease(
    ledger: Ledger, parent: Job, child: Job
) -> None:
    assert ledger.renew("cpu@a", [parent]) == {parent.id: "lost"}
    assert not ledger.finish(parent, JobState.FAILED).kept
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={})
    claim(ledger, parent.id)


def test_a_delegation_asked_twice_makes_one_child(ledger: Ledger, parent: Job) -> None:
    new = new_job()
    assert ledger.delegate(parent, new).kept
    assert ledger.delegate(parent, new).kept, "repeated after a lost reply"
    assert ledger.get(parent.id).children == (new.id,)
    ledger.finish(claim(ledger, new.id), JobState.SUCCEEDED, result={})
    current = claim(ledger, parent.id)
    assert not ledger.delegate(parent, new_job()).kept, "the fence is stale"
    assert ledger.get(parent.id) == current.model_copy(update={"epoch": None})


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED])
def test_a_child_that_did_not_succeed_moves_its_parent_on_too(
    ledger: Ledger, parent: Job, child: Job, end: JobState
) -> None:
    ledger.finish(claim(ledger, child.id), end)
    assert claim(ledger, parent.id).awaits == child.id


def test_cancel_reaches_the_child_that_runs(ledger: Ledger, parent: Job, child: Job) -> None:
    running = claim(ledger, child.id)
    assert ledger.cancel(parent.id).state is JobState.RUNNING
    assert ledger.renew("cpu@a", [running]) == {running.id: "cancel"}
    ledger.finish(running, JobState.CANCELLED)
    assert state(ledger, parent) is JobState.CANCELLED


def test_cancel_counts_though_the_child_succeeded(ledger: Ledger, parent: Job, child: Job) -> None:
    running = claim(ledger, child.id)
    ledger.cancel(parent.id)
    ledger.finish(running, JobState.SUCCEEDED, result={})
    assert state(ledger, parent) is JobState.CANCELLED


def test_cancel_ends_both_at_once_where_the_child_is_queued(
    ledger: Ledger, parent: Job, child: Job
) -> None:
    assert ledger.cancel(parent.id).state is JobState.CANCELLED
    assert state(ledger, child) is JobState.CANCELLED


def test_cancel_between_claim_and_delegation_leaves_no_child(ledger: Ledger, parent: Job) -> None:
    ledger.cancel(parent.id)
    assert ledger.delegate(parent, new_job()).kept
    ended = ledger.get(parent.id)
    assert (ended.state, ended.children) == (JobState.CANCELLED, ())


def fail(ledger: Ledger, parent: Job, child: Job) -> None:
    ledger.finish(claim(ledger, child.id), JobState.FAILED)
    ledger.finish(claim(ledger, parent.id), JobState.FAILED)


def test_a_retried_job_decides_which_child_runs_again(
    ledger: Ledger, parent: Job, child: Job
) -> None:
    fail(ledger, parent, child)
    revived = ledger.revive(parent.id)
    assert (revived.state, revived.awaits) == (JobState.QUEUED, None)
    assert state(ledger, child) is JobState.FAILED
    again = claim(ledger, parent.id)
    assert again.children == (child.id,), "what it needs to decide"
    assert ledger.delegate(again, ledger.get(child.id)).kept
    assert state(ledger, child) is JobState.QUEUED
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={})
    assert claim(ledger, parent.id).children == (child.id,)


def test_a_retried_child_takes_its_parent_along(ledger: Ledger, parent: Job, child: Job) -> None:
    fail(ledger, parent, child)
    ledger.revive(child.id)
    assert state(ledger, parent) is JobState.RUNNING
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={})
    assert claim(ledger, parent.id).awaits == child.id


@pytest.mark.parametrize("again", ["parent", "child"])
def test_a_retry_gives_both_the_whole_time_again(ledger: Ledger, again: str) -> None:
    limited = replace(new_job(JobKind.IMPORT), lifetime_seconds=1)
    parent = claim(ledger, ledger.accept(limited)[0].id)
    ledger.delegate(parent, new := new_job())
    child = ledger.get(new.id)
    assert child.deadline == parent.deadline
    wait_until(lambda: ledger.reconcile() and state(ledger, parent) is JobState.FAILED)
    ledger.revive(parent.id if again == "parent" else child.id)
    if again == "parent":
        ledger.delegate(claim(ledger, parent.id), child)
    later = ledger.get(parent.id).deadline
    assert parent.deadline is not None
    assert later is not None
    assert later > parent.deadline
    assert ledger.get(child.id).deadline == later


def test_a_retried_child_does_not_disturb_a_parent_that_runs(
    ledger: Ledger, parent: Job, child: Job
) -> None:
    ledger.finish(claim(ledger, child.id), JobState.FAILED)
    running = claim(ledger, parent.id)
    ledger.revive(child.id)
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={})
    assert ledger.get(parent.id) == running.model_copy(update={"epoch": None})


def test_a_child_that_ended_meanwhile_is_not_waited_for(
    ledger: Ledger, parent: Job, child: Job
) -> None:
    ledger.finish(claim(ledger, child.id), JobState.FAILED)
    stale, running = ledger.get(child.id), claim(ledger, parent.id)
    ledger.revive(child.id)
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={})
    assert ledger.delegate(running, stale).kept
    assert claim(ledger, parent.id).awaits == child.id


def test_the_parts_progress_is_the_whole_jobs(ledger: Ledger, parent: Job) -> None:
    def run(part: int, *reports: Progress) -> list[Progress | None]:
        new = new_job(JobKind.UPLOAD, part=(part, 2))
        ledger.delegate(claim(ledger, parent.id) if part else parent, new)
        child, seen = claim(ledger, new.id), []
        for report in reports:
            ledger.report_progress(child, report)
            seen.append(ledger.get(parent.id).progress)
        ledger.finish(child, JobState.SUCCEEDED, result={})
        return seen

    large = 53_687_091_203
    assert run(0, Progress(completed=7, message="x"), Progress(completed=7, total=large)) == [
        Progress(completed=7, total=None, message="upload: x"),
        Progress(completed=7, total=2 * large, message="upload: "),
    ]
    assert run(1, Progress(completed=large, total=large, message="y")) == [
        Progress(completed=2 * large, total=2 * large, message="upload: y")
    ]


def test_a_childs_result_outlives_the_retention_while_its_parent_runs(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    ledger = Ledger(redis_client, ledger_settings.model_copy(update={"retention_seconds": 0.05}))
    parent = claim(ledger, ledger.accept(new_job(JobKind.IMPORT))[0].id)
    first, second = new_job(), new_job()
    ledger.delegate(parent, first)
    ledger.finish(claim(ledger, first.id), JobState.SUCCEEDED, result={"n": 1})
    parent = claim(ledger, parent.id)
    ledger.delegate(parent, second)
    passed = wait_passes(ledger)
    assert passed == 0, "nothing was forgotten"
    assert ledger.get(first.id).result == {"n": 1}
    ledger.cancel(parent.id)
    expired = 0

    def all_forgotten() -> bool:
        nonlocal expired
        expired += ledger.reconcile().expired
        return expired == 3

    wait_until(all_forgotten, what="all three are forgotten")
    assert not list(redis_client.scan_iter(f"{ledger_settings.prefix}:2:job:*"))


def wait_passes(ledger: Ledger) -> int:
    """Reconcile until the retention has passed several times; return what expired."""
    looks, expired = 0, 0

    def enough() -> bool:
        nonlocal looks, expired
        expired += ledger.reconcile().expired
        looks += 1
        time.sleep(0.05)
        return looks >= 4

    wait_until(enough, what="several passes")
    return expired


def test_a_parent_without_its_large_input_is_not_taken_along(ledger: Ledger) -> None:
    new = new_job(JobKind.IMPORT)
    large = replace(new, request={"smoke_test": {"image": "x" * 100_000}})
    parent = claim(ledger, ledger.accept(large)[0].id)
    child = new_job()
    ledger.delegate(parent, child)
    ledger.finish(claim(ledger, child.id), JobState.FAILED)
    ledger.finish(claim(ledger, parent.id), JobState.FAILED)
    ledger.revive(child.id)
    assert state(ledger, parent) is JobState.FAILED, "what is left of its request is cut"
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={})
    assert state(ledger, parent) is JobState.FAILED
