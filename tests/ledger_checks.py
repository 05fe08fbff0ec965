"""Compares all that Redis holds of a ledger with what the model says."""

from collections import Counter, defaultdict

import redis

from shared.jobs import JobState
from shared.ledger import Counts, JobEvent
from tests.ledger_model import LedgerModel

ZSETS = {"due", "jobs", "by", "children", "ready", "waiting", "hinted"}


class Seen:
    """All that Redis holds of a ledger at one moment, by the first word of the key and the rest."""

    def __init__(self, client: "redis.Redis", prefix: str) -> None:
        keys = [str(key) for key in client.keys(f"{prefix}:*")]
        self.keys = [self._split(key.removeprefix(f"{prefix}:")) for key in keys]
        pipe = client.pipeline(transaction=False)
        for key, (name, _) in zip(keys, self.keys, strict=True):
            if name in {"job", "queued_by"}:
                pipe.hgetall(key)
            elif name in ZSETS:
                pipe.zrange(key, 0, -1)
            else:
                pipe.exists(key)
        found = dict(zip(self.keys, pipe.execute(), strict=True))
        self.hashes = {key: value for key, value in found.items() if isinstance(value, dict)}
        self.sets = {key: value for key, value in found.items() if isinstance(value, list)}

    def named(self, name: str) -> set[str]:
        """Return what follows a word in keys."""
        return {rest for first, rest in self.keys if first == name}

    def members(self, name: str) -> list[str]:
        """Return the members of all sets whose keys begin with a word."""
        return [each for (first, _), those in self.sets.items() if first == name for each in those]

    @staticmethod
    def _split(key: str) -> tuple[str, str]:
        name, _, rest = key.partition(":")
        return name, rest


def check_jobs(seen: Seen, model: LedgerModel) -> None:
    """Every job is as it should be, and due some time."""
    assert set(seen.members("due")) == set(model.jobs)
    for job_id, expected in model.jobs.items():
        record = seen.hashes["job", job_id]
        assert record["state"] == expected.state.value
        shown = ("attempts", "crashes", "fence")
        assert {name: int(record[name]) for name in shown} == {
            name: getattr(expected, name) for name in shown
        }
        if expected.state is JobState.RUNNING and not expected.queue:
            assert int(record["pending"]) == model.pending(expected) > 0


def check_lanes(seen: Seen, model: LedgerModel) -> None:
    """Every job that waits is in its lane, and no window is too full."""
    expected = defaultdict[tuple[str, str], set[str]](set)
    for job in model.jobs.values():
        if job.lane is not None:
            queue, bucket, alone, submitter = job.lane
            lane = f"{queue}:{bucket}:{'alone' if alone else 'shared'}:{submitter}"
            expected["hinted" if job.hinted else "waiting", lane].add(job.id)
    lanes = {key: set(seen.sets[key]) for key in seen.sets if key[0] in {"hinted", "waiting"}}
    assert lanes == expected
    hinted = [jobs for (name, _), jobs in lanes.items() if name == "hinted"]
    assert all(len(jobs) <= model.settings.window for jobs in hinted)


def check_counts(seen: Seen, model: LedgerModel, counts: Counts) -> None:
    """What is counted as it happens is what a recount finds."""
    open_jobs = model.open()
    queued = [job for job in open_jobs if job.state is JobState.QUEUED]
    assert counts.request_bytes == sum(job.size for job in open_jobs)
    assert sum(queue.queued for queue in counts.queues) == len(queued)
    if queued:
        oldest = model.now - min(job.created for job in queued)
        assert counts.queues[0].oldest_seconds == oldest / 1000
    begun = counts.total(JobEvent.ACCEPTED) + counts.total(JobEvent.REVIVED)
    done = sum(map(counts.total, (JobEvent.SUCCEEDED, JobEvent.FAILED, JobEvent.CANCELLED)))
    assert begun - done == len(open_jobs)
    kept = counts.total(JobEvent.ACCEPTED) - counts.total(JobEvent.EXPIRED)
    assert kept == len(model.jobs)
    assert counts.waiting.get("hub", 0) == sum(job.missed is not None for job in open_jobs)
    held = seen.hashes.get(("queued_by", ""), {})
    by_submitter = Counter(job.submitter for job in queued if job.submitter)
    assert {name: int(number) for name, number in held.items()} == by_submitter


def check_keys(seen: Seen, model: LedgerModel) -> None:
    """Nothing is left of what is forgotten."""
    jobs = set(model.jobs)
    assert seen.named("job") == jobs
    assert seen.named("events") <= jobs
    assert len(seen.named("idempotency")) == len(model.keys)
    for name in ("jobs", "by", "children"):
        assert set(seen.members(name)) <= jobs
    queued = {job.id for job in model.open() if job.state is JobState.QUEUED}
    assert set(seen.members("ready")) == queued
