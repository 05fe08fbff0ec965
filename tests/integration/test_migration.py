"""Jobs of commit 041e199 go on under this version, each once."""

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from shared.errors import IdempotencyConflictError, UnavailableError
from shared.jobs import Job, JobKind, JobState
from shared.ledger import (
    Counts,
    JobEvent,
    Ledger,
    NewJob,
    OldLedger,
    Presence,
    SchemaError,
    Want,
    connect,
    migration,
    prepare_ledger,
)
from shared.settings import LedgerSettings, RedisSettings
from tests.old_ledger import NAMES, OLD, OLD_PREFIX, OldRedis
from tests.processes import wait_until

#: They are run by a worker that is alive, or wait for such a job.
HELD = {"held", "held import part"}
QUEUES = ("downloads", "uploads.host-1", "inference", "imports")


@pytest.fixture
def old(redis_settings: RedisSettings, ledger_settings: LedgerSettings) -> Iterator[OldRedis]:
    """A database of its own: Celery's lists have no prefix."""
    url = redis_settings.url.get_secret_value()
    own = RedisSettings.model_validate({"url": f"{url.rpartition('/')[0]}/11"})
    client = connect(own)
    client.flushdb()
    yield OldRedis(client, ledger_settings.prefix)
    client.flushdb()
    client.close()


@pytest.fixture
def ledger(old: OldRedis, ledger_settings: LedgerSettings) -> Ledger:
    """The ledger of this version on that database."""
    return Ledger(old.client, ledger_settings)


def job(ledger: Ledger, name: str) -> Job:
    return ledger.get(NAMES[name])


def migrate(old: OldRedis, settings: LedgerSettings) -> int:
    return prepare_ledger(old.client, settings).left


def states(ledger: Ledger, *names: str) -> list[str]:
    return [job(ledger, name).state.value for name in names]


def run_all(ledger: Ledger) -> list[str]:
    """Do every job that a worker could claim, and return which ran, in their order."""
    ran = []
    for alone in (False, True):
        want = Want("cpu@new/0", "cpu@new", QUEUES, alone=alone, nonce=uuid.uuid4().hex)
        while claimed := ledger.claim(want).jobs:
            ran += [each.id for each in claimed]
            for each in claimed:
                assert ledger.finish(each, JobState.SUCCEEDED, result={}).kept
            want = Want("cpu@new/0", "cpu@new", QUEUES, alone=alone, nonce=uuid.uuid4().hex)
    return ran


def test_queued_jobs_stay_as_they_were(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    migrate(old, ledger_settings)
    queued = job(ledger, "queued")
    assert (queued.state, queued.priority, queued.submitter) == (JobState.QUEUED, 3, "alice")
    assert queued.deadline is not None
    assert (queued.deadline - queued.created_at).total_seconds() == 3600
    retried = job(ledger, "retried")
    assert (retried.attempts, retried.error and retried.error.code) == (1, "hub_unavailable")
    assert (retried.available_at - retried.created_at).total_seconds() >= 600
    assert job(ledger, "crashed").crashes == 2
    assert len(job(ledger, "large").request["text"]) == 5000
    again, is_new = ledger.accept(
        NewJob(
            kind=JobKind.DOWNLOAD,
            request={"model_name": "queued"},
            queue="downloads",
            model="queued",
            max_attempts=3,
            submitter="alice",
        ),
        idempotency_key="once",
    )
    assert (again.id, is_new) == (queued.id, False)


def test_ended_jobs_are_read_as_before(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    migrate(old, ledger_settings)
    assert states(ledger, "succeeded", "failed", "cancelled", "ended batch") == [
        *("succeeded", "failed", "cancelled", "succeeded")
    ]
    assert job(ledger, "succeeded").result == {"files": [1, 2]}
    failed = job(ledger, "failed")
    assert failed.error is not None
    assert failed.error.detail == "the hub does not answer"
    assert failed.finished_at is not None
    assert len(job(ledger, "ended batch").children) == 3
    forgotten = old.client.zscore(f"{ledger_settings.prefix}:2:expiries", failed.id)
    left = (forgotten or 0) / 1000 - failed.finished_at.timestamp()
    assert left == pytest.approx(ledger_settings.retention_seconds, abs=0.1)


def test_jobs_of_a_worker_that_is_gone_run_again_and_their_runs_do_not_count(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    migrate(old, ledger_settings)
    running = job(ledger, "running")
    assert (running.state, running.attempts, running.crashes) == (JobState.QUEUED, 0, 0)
    assert running.fence == 1
    assert job(ledger, "cancelling").state is JobState.CANCELLED


def test_every_job_ends_once(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    old.end_leases(*HELD)
    for name in ("retried", "crashed"):
        old.client.hset(f"{old.prefix}:job:{NAMES[name]}", "available_at", 1)
    ended = {
        name for name in NAMES if _recorded_state(name) in {"succeeded", "failed", "cancelled"}
    }
    assert migrate(old, ledger_settings) == 0
    ran = run_all(ledger)
    assert len(ran) == len(set(ran))
    assert {NAMES[name] for name in ended}.isdisjoint(ran)
    found = {name: job(ledger, name).state for name in NAMES}
    assert {name for name, state in found.items() if not state.terminal} == set()
    batch = job(ledger, "batch")
    assert batch.state is JobState.SUCCEEDED
    assert batch.result is not None
    assert len(batch.result["succeeded"]) == 3
    assert run_all(ledger) == []


def _recorded_state(name: str) -> str:
    record: dict[str, Any] = OLD["keys"][f"{OLD_PREFIX}:job:{NAMES[name]}"][1]
    return str(record["state"])


def test_nothing_is_left_of_the_old_keys(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    old.end_leases(*HELD)
    before = _recorded_counts("accepted")
    migrate(old, ledger_settings)
    presence = {
        f"{old.prefix}:{name}" for name in ("workers", "worker:cpu@alive", "worker:gpu@alive")
    }
    assert old.keys() == presence
    counts = ledger.counts()
    assert counts.total(JobEvent.ACCEPTED) == before == len(NAMES)
    open_jobs = [each for name in NAMES if not (each := job(ledger, name)).state.terminal]
    assert counts.request_bytes == sum(_size(each) for each in open_jobs)
    assert _depth(counts) == sum(each.state is JobState.QUEUED for each in open_jobs)
    assert old.client.hgetall(f"{old.prefix}:2:queued_by") == {"alice": "1"}
    assert Presence(old.client, ledger_settings).handlers() == ["text-generation:echo"]


def _recorded_counts(event: str) -> int:
    counts: dict[str, str] = OLD["keys"][f"{OLD_PREFIX}:counts"][1]
    return sum(int(count) for name, count in counts.items() if name.startswith(event))


def _size(each: Job) -> int:
    return len(json.dumps(each.request, separators=(",", ":")))


def _depth(counts: Counts) -> int:
    return sum(queue.queued for queue in counts.queues)


def test_what_a_living_old_worker_runs_is_left_to_it(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    old_ledger = OldLedger(old.client, ledger_settings)
    assert [worker.name for worker in old_ledger.workers()] == ["cpu@alive", "gpu@alive"]
    assert old_ledger.adopt().left == len(HELD)
    with pytest.raises(UnavailableError, match="not taken over from the older version yet"):
        job(ledger, "held")
    ran = run_all(ledger)
    assert {NAMES[name] for name in HELD}.isdisjoint(ran)
    assert job(ledger, "held import").state is JobState.RUNNING, "it waits for its part"

    # The one ends under the old worker, which is then gone, and the other is given back by it.
    _end_as_the_old_version("held import part", old)
    old.client.hset(
        f"{old.prefix}:job:{NAMES['held']}", mapping={"state": "queued", "lease_until": ""}
    )
    adoption = old_ledger.adopt()
    assert (adoption.adopted, adoption.left) == (2, 0)
    assert job(ledger, "held import part").result == {"files": 1}
    assert set(run_all(ledger)) == {NAMES["held"], NAMES["held import"]}


def _end_as_the_old_version(name: str, old: OldRedis) -> None:
    key, job_id = f"{old.prefix}:job:{NAMES[name]}", NAMES[name]
    finished = old.client.hget(key, "created_at")
    ended: dict[Any, Any] = {"state": "succeeded", "result": '{"files": 1}', "lease_until": ""}
    ended["finished_at"] = finished
    old.client.hset(key, mapping=ended)
    old.client.zrem(f"{old.prefix}:by:state:running", job_id)
    old.client.zadd(f"{old.prefix}:by:state:succeeded", {job_id: 0})


def test_an_old_worker_that_was_killed_is_waited_for(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    old.client.pexpire(f"{old.prefix}:worker:cpu@alive", 300)
    wait_until(lambda: not migrate(old, ledger_settings), what="the jobs of the old worker")
    assert states(ledger, *sorted(HELD)) == ["queued", "queued"]


def test_many_processes_that_start_at_once_and_die_adopt_each_job_once(
    old: OldRedis,
    ledger: Ledger,
    ledger_settings: LedgerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migration, "PIECE", 2)
    old.end_leases(*HELD)
    starting = threading.Barrier(4)

    def start(number: int) -> int:
        process = OldLedger(old.client, ledger_settings)
        starting.wait()
        if number == 0:  # it stops after its first piece, as if it died
            return process._piece("")[1]
        return process.adopt().adopted

    with ThreadPoolExecutor(4) as threads:
        adopted = sum(threads.map(start, range(4)))
    assert adopted == len(NAMES)
    assert len(ledger.page(limit=100)[0]) == len(NAMES)
    assert migrate(old, ledger_settings) == 0


def test_a_process_says_why_it_does_not_start_on_a_later_schema(
    redis_client: "redis.Redis", ledger_settings: LedgerSettings
) -> None:
    prepare_ledger(redis_client, ledger_settings)
    key = f"{ledger_settings.prefix}:schema"
    assert redis_client.get(key) == "2"
    redis_client.set(key, 3)
    with pytest.raises(SchemaError, match=r"a later version .* \(schema 3, here 2\): install"):
        prepare_ledger(redis_client, ledger_settings)
    assert redis_client.get(key) == "3"


def test_an_idempotency_key_of_an_old_job_is_still_refused_to_another_request(
    old: OldRedis, ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    migrate(old, ledger_settings)
    other = NewJob(kind=JobKind.DOWNLOAD, request={}, queue="downloads", model="", max_attempts=3)
    with pytest.raises(IdempotencyConflictError):
        ledger.accept(other, idempotency_key="done")
