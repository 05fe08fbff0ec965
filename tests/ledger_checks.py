"""Compares all that Redis holds of a ledger with what the model says."""

import json
from collections import Counter, defaultdict

import redis

from shared.jobs import JobState
from shared.ledger import Counts, JobEvent
from tests.ledger_model import LedgerModel, ids

HASHES = {"job", "queued_by", "available"}
ZSETS = {"due", "leases", "expiries", "jobs", "children", "ready", "lanes", "lane", "affine"}
LISTS = {"pieces"}


class Seen:
    """All that Redis holds of a ledger at one moment, by the first word of the key and the rest."""

    def __init__(self, client: "redis.Redis", prefix: str) -> None:
        """Take the prefix of the ledger, without the number of its schema."""
        keys = [str(key) for key in client.keys(f"{prefix}:2:*")]
        lists = [str(key) for key in client.keys(f"{prefix}.*")]
        self.keys = [self._split(key.removeprefix(f"{prefix}:2:")) for key in keys]
        pipe = client.pipeline(transaction=False)
        for key, (name, _) in zip(keys, self.keys, strict=True):
            if name in HASHES:
                pipe.hgetall(key)
            elif name in ZSETS:
                pipe.zrange(key, 0, -1)
            elif name in LISTS:
                pipe.lrange(key, 0, -1)
            else:
                pipe.exists(key)
        for key in lists:
            pipe.llen(key)
        found = pipe.execute()
        values = dict(zip(self.keys, found[: len(keys)], strict=True))
        self.hashes = {key: value for key, value in values.items() if isinstance(value, dict)}
        self.sets = {key: value for key, value in values.items() if isinstance(value, list)}
        #: The number of entries that idle slots wait for, by queue.
        self.entries = {
            key.removeprefix(f"{prefix}."): int(number)
            for key, number in zip(lists, found[len(keys) :], strict=True)
        }

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
    """Every job is as it should be, and looked at some time."""
    leased = {job for job in model.open() if job.queue and job.state is JobState.RUNNING}
    assert set(seen.members("leases")) == ids(leased)
    assert set(seen.members("expiries")) == ids(set(model.jobs.values()) - set(model.open()))
    # A claim leaves the time at which its job is looked at as it is; the reconciler removes it.
    limited = {job for job in leased if job.deadline is not None}
    assert ids((set(model.open()) - leased) | limited) <= set(seen.members("due"))
    assert set(seen.members("due")) <= ids(model.open())
    for job_id, expected in model.jobs.items():
        record = seen.hashes["job", job_id]
        assert record["state"] == expected.state.value
        shown = ("attempts", "crashes", "fence")
        assert {name: int(record[name]) for name in shown} == {
            name: getattr(expected, name) for name in shown
        }
        assert record.get("nonce", "") == expected.nonce
        assert set(record.get("waiters", "").split()) == expected.waiters
        if expected.state is JobState.RUNNING and not expected.queue:
            assert int(record["pending"]) == model.pending(expected) > 0


def check_lanes(seen: Seen, model: LedgerModel) -> None:
    """Every job that may start is in its lane, and for each there is one entry to wait for."""
    lanes, turns = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    affine, entries = defaultdict[str, set[str]](set), Counter[str]()
    for job in model.jobs.values():
        if job.lanes is None:
            continue
        lane = f"{job.priority}:{job.submitter}"
        lanes[f"{job.lanes}:{lane}"].add(job.id)
        turns[job.lanes].add(lane)
        entries[job.lanes] += 1
        if job.affinity:
            affine[f"{job.lanes}:{job.priority}:{job.affinity}"].add(job.id)
    for name, expected in (("lane", lanes), ("lanes", turns), ("affine", affine)):
        assert {rest: set(each) for (first, rest), each in seen.sets.items() if first == name} == (
            expected
        )
    assert seen.entries == entries
    available = seen.hashes.get(("available", ""), {})
    assert {queue: int(number) for queue, number in available.items() if number != "0"} == entries


def check_counts(seen: Seen, model: LedgerModel, counts: Counts) -> None:
    """What is counted as it happens is what a recount finds."""
    open_jobs = model.open()
    queued = [job for job in open_jobs if job.state is JobState.QUEUED]
    assert counts.request_bytes == sum(job.size for job in open_jobs)
    assert sum(queue.queued for queue in counts.queues) == len(queued)
    oldest = [queue.oldest_seconds for queue in counts.queues if queue.oldest_seconds is not None]
    if queued and all(job.created <= model.now for job in queued):
        assert max(oldest) == (model.now - min(job.created for job in queued)) / 1000
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
    """Nothing is left of what is forgotten, and of large inputs nothing after the end."""
    jobs = set(model.jobs)
    assert seen.named("job") == seen.named("request") == jobs
    assert seen.named("result") <= jobs
    assert seen.named("events") == ids(job for job in model.jobs.values() if job.followed)
    assert seen.named("input") == ids(job for job in model.open() if job.cut)
    assert len(seen.named("idempotency")) == len(model.keys)
    pieces = {
        rest: [[each["fields"]["id"] for each in json.loads(piece)] for piece in those]
        for (name, rest), those in seen.sets.items()
        if name == "pieces"
    }
    for job in model.jobs.values():
        written = [[child.id for child in piece] for piece in job.pieces]
        assert pieces.pop(job.id, []) == written
    assert not set(pieces) & jobs
    for name in ("jobs", "children"):
        assert set(seen.members(name)) <= jobs
    queued = {job.id for job in model.open() if job.state is JobState.QUEUED}
    assert set(seen.members("ready")) == queued
