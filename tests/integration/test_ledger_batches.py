"""Batches are written, cancelled and retried in pieces, whatever happens between two of them."""

from itertools import product
from typing import Any

import pytest
import redis

from shared.errors import ErrorInfo, UnavailableError
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Filter, Ledger
from shared.ledger.scripts import PIECE, Operation
from shared.settings import LedgerSettings
from tests.claims import claim, claim_next, download
from tests.processes import wait_until

FAILURE = ErrorInfo(code="x", detail="x")


class DeadError(Exception):
    """The process died between two calls."""


class Interrupted(Ledger):
    """A client that dies before it continues with the rest of a batch."""

    def _call(self, operation: Operation) -> tuple[Any, Any]:
        if operation.name == "sweep":
            raise DeadError
        return super()._call(operation)


@pytest.fixture
def interrupted(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Interrupted:
    return Interrupted(redis_client, ledger_settings)


def failed_batch(ledger: Ledger, count: int) -> Job:
    """Return a batch that was cancelled, all children with it."""
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="")
    job = ledger.accept(parent, [download(f"m{number}") for number in range(count)])[0]
    return ledger.cancel(job.id)


def run_all(ledger: Ledger) -> int:
    """Run all jobs that may start, and return their number."""
    number = 0
    while (job := claim_next(ledger, "cpu@a", "downloads")) is not None:
        ledger.finish(job, JobState.SUCCEEDED, result={})
        number += 1
    return number


def test_a_batch_whose_client_died_is_written_to_its_end(
    ledger: Ledger, interrupted: Interrupted
) -> None:
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="")
    children = [download(f"m{number}") for number in range(2 * PIECE + 1)]
    with pytest.raises(DeadError):
        interrupted.accept(parent, children)
    assert ledger.get(parent.id).children == ()
    wait_until(
        lambda: ledger.reconcile() and ledger.queued("downloads") == len(children),
        what="reconcilers write the children",
    )
    assert run_all(ledger) == len(children)
    assert ledger.get(parent.id).state is JobState.SUCCEEDED


def test_a_batch_whose_children_were_lost_by_a_failover_is_not_accepted(
    ledger: Ledger, redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    class FailingOver(Ledger):
        def _call(self, operation: Operation) -> tuple[Any, Any]:
            redis_client.delete(f"{ledger_settings.prefix}:2:pieces:{parent.id}")
            return super()._call(operation)

    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="")
    with pytest.raises(UnavailableError, match="lost a part of the batch"):
        FailingOver(redis_client, ledger_settings).accept(parent, [download("m")])
    assert ledger.page() == ([], None)


def test_a_child_that_is_retried_before_its_batch_is_counted_once(
    ledger: Ledger, interrupted: Interrupted
) -> None:
    parent = failed_batch(ledger, 2 * PIECE)
    with pytest.raises(DeadError):
        interrupted.revive(parent.id)
    last = ledger.get(parent.id).children[-1]
    assert ledger.revive(last).state is JobState.QUEUED
    wait_until(
        lambda: ledger.reconcile() and ledger.queued("downloads") == 2 * PIECE,
        what="reconcilers retry the others",
    )
    wait_until(
        lambda: run_all(ledger) or (ledger.reconcile() and ledger.get(parent.id).state.terminal),
        what="the batch ends",
        timeout_seconds=10,
    )
    wait_until(lambda: ledger.reconcile() and ledger.ended(parent.id), timeout_seconds=10)
    assert ledger.get(parent.id).state is JobState.SUCCEEDED


def test_a_batch_with_a_large_request_is_retried(ledger: Ledger) -> None:
    request = {"downloads": [{"model_name": f"org/model-{number}"} for number in range(5000)]}
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="", request=request)
    job = ledger.accept(parent, [download("m")])[0]
    ledger.finish(claim(ledger, job.children[0]), JobState.FAILED, error=FAILURE)
    assert ledger.revive(parent.id).state is JobState.RUNNING
    assert run_all(ledger) == 1
    assert ledger.get(parent.id).state is JobState.SUCCEEDED


def end(ledger: Ledger, state: JobState, result: dict[str, Any] | None = None) -> Job:
    """End the next job."""
    job = claim_next(ledger, "cpu@a", "downloads")
    assert job is not None
    error = FAILURE if state is JobState.FAILED else None
    assert ledger.finish(job, state, result=result, error=error).kept
    return job


def test_a_large_batch_shows_the_end_of_every_child(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.ledger.scripts.TALLY", 2)
    ledger = Ledger(redis_client, ledger_settings)
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="")
    children = [download(f"m{number}") for number in range(7)]
    ledger.accept(parent, children)
    succeeded = [end(ledger, JobState.SUCCEEDED, {"files": []}).id for _ in range(3)]
    failed = [end(ledger, JobState.FAILED).id for _ in range(2)]
    cancelled = [
        ledger.cancel(each.id).id for each in children if each.id not in succeeded + failed
    ]
    wait_until(lambda: ledger.reconcile() and ledger.ended(parent.id))
    job = ledger.get(parent.id)
    assert job.result is not None
    ends = {state: [each["job_id"] for each in job.result[state]] for state in job.result}
    assert ends == {"succeeded": succeeded, "failed": failed, "cancelled": cancelled}
    assert job.result["succeeded"][0]["result"] == {"files": []}
    assert (job.state, job.error and job.error.detail) == (
        *(JobState.FAILED, "2 of 7 failed: m3, m4"),
    )


def test_the_result_of_a_batch_that_was_retried_replaces_the_first(ledger: Ledger) -> None:
    parent = failed_batch(ledger, 2)
    assert parent.result == {"succeeded": [], "failed": [], "cancelled": [*_parts(parent)]}
    ledger.revive(parent.id)
    run_all(ledger)
    again = ledger.get(parent.id).result
    assert again is not None
    assert [len(each) for each in again.values()] == [2, 0, 0]


def _parts(parent: Job) -> list[dict[str, str]]:
    ends = zip(parent.children, ("m0", "m1"), strict=True)
    return [{"job_id": job_id, "model_name": model} for job_id, model in ends]


@pytest.mark.parametrize("looked_at_one_by_one", [2, 100])
def test_children_are_listed_by_every_filter(
    redis_client: "redis.Redis",
    ledger_settings: LedgerSettings,
    monkeypatch: pytest.MonkeyPatch,
    looked_at_one_by_one: int,
) -> None:
    monkeypatch.setattr("shared.ledger.scripts.LISTED_CHILDREN", looked_at_one_by_one)
    ledger = Ledger(redis_client, ledger_settings)
    parent = download("", kind=JobKind.BATCH_DOWNLOAD, queue="")
    children = [download(f"m{number % 3}", submitter=f"s{number % 2}") for number in range(9)]
    ledger.accept(parent, children)
    for state in (*[JobState.SUCCEEDED] * 2, JobState.FAILED):
        end(ledger, state)
    ledger.accept(download("m1", submitter="s1"))
    jobs = [ledger.get(child.id) for child in reversed(children)]
    for state, kind, model, submitter in product(
        (None, *JobState),
        (None, JobKind.DOWNLOAD, JobKind.INFER),
        (None, "m1", "other"),
        (None, "s1", "other"),
    ):
        wanted = Filter(state, kind, model, parent.id, submitter)
        fitting = [
            job.id
            for job in jobs
            if state in {None, job.state}
            and kind in {None, job.kind}
            and model in {None, job.model}
            and submitter in {None, job.submitter}
        ]
        assert listed(ledger, wanted) == fitting, wanted


def listed(ledger: Ledger, wanted: Filter) -> list[str]:
    """Return the ids of all pages; each but the last one is full."""
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = ledger.page(wanted, limit=2, cursor=cursor)
        found += [job.id for job in page]
        if cursor is None:
            return found
        assert len(page) == 2


def test_one_reconciliation_forgets_more_than_one_call_looks_at(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.ledger.ledger.RECONCILED", 2)
    ledger = Ledger(redis_client, ledger_settings.model_copy(update={"retention_seconds": 0.001}))
    for _ in range(5):
        ledger.cancel(ledger.accept(download("m"))[0].id)
    assert ledger.reconcile().expired == 5
