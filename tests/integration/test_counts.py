"""What the ledger counts, on a real Redis."""

from shared.errors import ErrorInfo
from shared.jobs import Job, JobKind, JobState
from shared.ledger import RUN_SECONDS_BOUNDS, JobEvent, Ledger, NewJob
from tests.claims import claim
from tests.processes import wait_until

LOST = ErrorInfo(code="unavailable", detail="hub down", retryable=True)


def new_job(
    kind: JobKind = JobKind.DOWNLOAD, queue: str = "downloads", priority: int = 5
) -> NewJob:
    return NewJob(kind=kind, request={}, queue=queue, model="m", max_attempts=3, priority=priority)


def claimed(ledger: Ledger, job: NewJob) -> Job:
    return claim(ledger, ledger.accept(job)[0].id)


def test_an_empty_ledger_counts_nothing(ledger: Ledger) -> None:
    counts = ledger.counts()
    assert (counts.events, counts.runs, counts.queues) == ((), (), ())


def test_every_way_through_the_ledger_is_counted(ledger: Ledger) -> None:
    ledger.finish(claimed(ledger, new_job()), JobState.SUCCEEDED, result={})
    failed = claimed(ledger, new_job(JobKind.INFER, "inference"))
    ledger.finish(failed, JobState.FAILED, error=LOST)
    ledger.cancel(ledger.revive(failed.id).id)
    ledger.requeue(claimed(ledger, new_job()), error=LOST, delay_seconds=60)
    ledger.requeue(claimed(ledger, new_job()), counts=False)
    parent = new_job(JobKind.BATCH_DOWNLOAD, queue="")
    ledger.accept(parent, [new_job(), new_job()])
    ledger.accept(new_job(), idempotency_key="k")
    ledger.accept(new_job(), idempotency_key="k")
    counts = ledger.counts()
    assert {
        (each.event.value, each.kind.value, each.queue): each.count for each in counts.events
    } == {
        ("accepted", "download", "downloads"): 6,
        ("accepted", "infer", "inference"): 1,
        ("accepted", "batch_download", ""): 1,
        ("succeeded", "download", "downloads"): 1,
        ("failed", "infer", "inference"): 1,
        ("revived", "infer", "inference"): 1,
        ("cancelled", "infer", "inference"): 1,
        ("retried", "download", "downloads"): 1,
        ("returned", "download", "downloads"): 1,
    }
    assert counts.total(JobEvent.ACCEPTED) == 8
    assert counts.total(JobEvent.ACCEPTED, queue="downloads") == 6
    assert counts.total(JobEvent.ACCEPTED, JobKind.INFER) == 1


def test_lost_workers_are_counted(ledger: Ledger) -> None:
    claimed(ledger, new_job())
    wait_until(lambda: ledger.reconcile().lost_leases, what="lease is lost")
    assert ledger.counts().total(JobEvent.LOST) == 1


def test_runs_are_a_histogram(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.finish(claimed(ledger, new_job()), JobState.SUCCEEDED, result={})
    ledger.requeue(claimed(ledger, new_job()))
    (runs,) = ledger.counts().runs
    assert (runs.kind, runs.count) == (JobKind.DOWNLOAD, 4)
    assert len(runs.within) == len(RUN_SECONDS_BOUNDS)
    assert list(runs.within) == sorted(runs.within), "each bound holds those of the lower ones"
    assert runs.within[-1] == 4
    assert 0 <= runs.sum_seconds < RUN_SECONDS_BOUNDS[-1]


def test_waiting_for_a_child_is_no_part_of_a_run(ledger: Ledger) -> None:
    parent = claimed(ledger, new_job(JobKind.IMPORT))
    child = new_job()
    assert ledger.delegate(parent, child).kept
    ledger.finish(claim(ledger, child.id), JobState.SUCCEEDED, result={})
    ledger.finish(claim(ledger, parent.id), JobState.SUCCEEDED, result={})
    counts = {runs.kind: runs.count for runs in ledger.counts().runs}
    assert counts == {JobKind.DOWNLOAD: 1, JobKind.IMPORT: 2}


def test_queues_say_how_deep_and_how_old_they_are(ledger: Ledger) -> None:
    claimed(ledger, new_job(JobKind.INFER, "inference"))
    ledger.accept(new_job(priority=9))
    wait_until(lambda: (ledger.counts().queues[0].oldest_seconds or 0) >= 0.05, what="it ages")
    ledger.accept(new_job(priority=0))
    downloads, inference = ledger.counts().queues
    assert (downloads.queue, downloads.queued) == ("downloads", 2)
    assert downloads.oldest_seconds is not None
    assert downloads.oldest_seconds >= 0.05, "the oldest, not the first in line"
    assert (inference.queue, inference.queued, inference.oldest_seconds) == ("inference", 0, None)
