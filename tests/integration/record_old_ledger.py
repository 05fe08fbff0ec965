# mypy: ignore-errors
# It is written against the code of commit 041e199, not against that of this one.
"""Records ``ledger_041e199.json``: a Redis with jobs of all sorts, as commit 041e199 wrote them.

It runs on the code of that commit and an empty database of Redis::

    git archive --prefix=old/ 041e199 | tar x -C /tmp
    PYTHONPATH=/tmp/old python tests/integration/record_old_ledger.py redis://127.0.0.1:6379/9 \
        > tests/integration/ledger_041e199.json

Jobs are named in the file by what they are; the test looks for them by these names.
"""

import json
import sys
import time

import redis

from shared.errors import ErrorInfo
from shared.jobs import JobKind, JobState, Progress
from shared.ledger import Ledger, NewJob, Presence, WorkerInfo
from shared.queue import Queue, celery_app
from shared.settings import LedgerSettings, RedisSettings, Settings

PREFIX = "lifecycle"
ERROR = ErrorInfo(code="hub_unavailable", detail="the hub does not answer", retryable=True)


def new(model: str, **changes: object) -> NewJob:
    fields = {
        "kind": JobKind.DOWNLOAD,
        "request": {"model_name": model},
        "queue": "downloads",
        "model": model,
        "max_attempts": 3,
    }
    return NewJob(**(fields | changes))


def fill(ledger: Ledger, presence: Presence) -> dict[str, str]:
    names = {}

    def accept(model: str, key: str | None = None, **changes: object):
        job, _ = ledger.accept(new(model, **changes), idempotency_key=key)
        names[model] = job.id
        return job

    def run(model: str, owner: str = "cpu@gone", **changes: object):
        return ledger.claim(accept(model, **changes).id, owner)

    accept("queued", key="once", priority=3, submitter="alice", lifetime_seconds=3600)
    accept("answer", kind=JobKind.INFER, queue="inference", start_within_seconds=600)
    accept("large", request={"model_name": "large", "text": "x" * 5000})
    accept("staged", kind=JobKind.UPLOAD, queue="uploads.host-1")
    ledger.requeue(run("retried"), delay_seconds=600, error=ERROR)
    for name in ("crashed", "crashed"):
        job = run(name) if name not in names else ledger.claim(names[name], "cpu@gone")
        ledger.lose(job)
    running = run("running")
    ledger.report_progress(running, Progress(completed=5, total=10, message="weights"))
    run("cancelling")
    ledger.cancel(names["cancelling"])
    run("held", owner="cpu@alive")

    ledger.finish(run("succeeded", key="done"), JobState.SUCCEEDED, result={"files": [1, 2]})
    ledger.finish(run("failed", submitter="alice"), JobState.FAILED, error=ERROR)
    accept("cancelled")
    ledger.cancel(names["cancelled"])

    batch(ledger, names, "batch", "cpu@gone")
    whole = batch(ledger, names, "ended batch", None)
    for child in whole:
        ledger.finish(ledger.claim(child, "cpu@gone"), JobState.SUCCEEDED, result={"files": 1})

    for name, owner in (("import", None), ("held import", "cpu@alive")):
        job = run(name, kind=JobKind.IMPORT)
        child = new(f"{name} part", part=(0, 3))
        names[f"{name} part"] = child.id
        ledger.delegate(job, child)
        if owner:
            ledger.claim(child.id, owner)

    presence.announce(WorkerInfo("cpu@alive", "cpu", "host", {"in_flight": 2}))
    stats = {"inference": {"stats": {"handlers": ["text-generation:echo"]}}, "in_flight": 0}
    presence.announce(WorkerInfo("gpu@alive", "gpu", "host", stats))
    return names


def batch(ledger: Ledger, names: dict[str, str], name: str, owner: str | None) -> list[str]:
    parts = [new(f"{name} part {number}") for number in range(3)]
    parent = new(name, kind=JobKind.BATCH_DOWNLOAD, queue="")
    ledger.accept(parent, parts)
    names[name] = parent.id
    names.update({part.model: part.id for part in parts})
    if owner:
        ended = ledger.claim(parts[0].id, owner)
        ledger.finish(ended, JobState.SUCCEEDED, result={"files": 1})
        ledger.claim(parts[1].id, owner)
    return [part.id for part in parts]


def dump(client: "redis.Redis") -> dict[str, object]:
    readers = {
        "string": client.get,
        "hash": client.hgetall,
        "set": lambda key: sorted(client.smembers(key)),
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": lambda key: [[entry, fields] for entry, fields in client.xrange(key)],
    }
    found = {}
    for key in sorted(client.scan_iter()):
        kind = client.type(key)
        found[key] = [kind, readers[kind](key)]
    return found


def main() -> None:
    url = sys.argv[1]
    client = redis.Redis.from_url(url, decode_responses=True)
    if client.dbsize():
        sys.exit("the database must be empty")
    settings = Settings(redis=RedisSettings(url=url), ledger=LedgerSettings(prefix=PREFIX))
    app = celery_app(settings, "cpu")
    ledger = Ledger(client, settings.ledger, Queue(app).publish)
    names = fill(ledger, Presence(client, settings.ledger))
    recorded = {"time": round(time.time() * 1000), "names": names, "keys": dump(client)}
    json.dump(recorded, sys.stdout, separators=(",", ":"))
    sys.stdout.write("\n")
    client.flushdb()


if __name__ == "__main__":
    main()
