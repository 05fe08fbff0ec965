"""Batches are written, cancelled and retried in pieces, whatever happens between two of them."""

from typing import Any

import pytest
import redis

from shared.errors import ErrorInfo, UnavailableError
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger
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
