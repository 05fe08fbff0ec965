"""The books: every accepted job is looked at, with what its events say and what it answered."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import redis

from shared.jobs import JobState
from shared.ledger import Filter, JobEvent, connect
from shared.ledger.schema import schema_prefix
from tests.chaos.driver import Driver, Order, made_at
from tests.chaos.incidents import Incidents
from tests.chaos.judge import Judge
from tests.chaos.schedule import FaultKind
from tests.chaos.stack import ChaosStack

Json = dict[str, Any]

_AT_ONCE = 16
_PAGE = 500
#: A client hears of an end within this time, on a busy machine too.
TELLING_SECONDS = 5.0
_UNDER_WAY = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Violation:
    """Something that must not be."""

    #: lost, stuck, twice, ended wrongly, …
    kind: str
    #: The job's id, or what else it is about.
    subject: str
    detail: str


@dataclass
class Books:
    """What became of everything."""

    #: By id, children of batches too.
    jobs: dict[str, Json] = field(default_factory=dict)
    #: Jobs by what they are called in the schedule, and state.
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    #: Jobs that Redis forgot, and may have forgotten, with what made it do so.
    forgotten: dict[str, FaultKind] = field(default_factory=dict)
    #: Runs whose worker was taken for lost, by job.
    crashes: dict[str, int] = field(default_factory=dict)

    def wrong(self, kind: str, subject: str, detail: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(kind, subject, detail))


async def all_jobs(driver: Driver) -> AsyncIterator[Json]:
    """Yield every job that the front lists."""
    cursor: str | None = None
    while True:
        params = {"limit": _PAGE} | ({"cursor": cursor} if cursor else {})
        page = (await driver.call("GET", "/jobs", params=params)).json()
        for job in page["jobs"]:
            yield job
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def look_at_all(driver: Driver, books: Books, before: set[str], incidents: Incidents) -> None:
    """Look at every job that a client knows; there are no others but those from ``before``."""
    accepted = {job_id: at for order in driver.orders for job_id, at in order.accepted.items()}
    ids = set(accepted)
    for job_id in await _unknown(driver, books, ids):
        if cause := incidents.lost(made_at(job_id), accepted[job_id]):
            books.forgotten[job_id] = cause
        else:
            books.wrong("lost", job_id, "the front does not know it")
    children = {child for job in books.jobs.values() for child in job["children"]}
    for job_id in await _unknown(driver, books, children):
        books.wrong("lost", job_id, "the front does not know this child of a batch")
    async for job in all_jobs(driver):
        if job["job_id"] not in ids | children | before:
            books.wrong("nobody's", job["job_id"], f"a {job['kind']} that nobody submitted")


def judge_all(orders: Iterable[Order], judge: Judge, books: Books) -> None:
    """Note what should not have ended as it did."""
    for order in orders:
        if order.refused:
            books.wrong("refused", order.submission.key, order.refused)
        known = order.job_ids - books.forgotten.keys()
        if len(known) > 1:
            books.wrong("twice", order.submission.key, f"one key, {len(known)} jobs")
        for job_id in order.job_ids & books.jobs.keys():
            job = books.jobs[job_id]
            books.ends[order.submission.work, job["state"]] += 1
            if reason := order.wrong or judge.verdict(order, job):
                kind = "stuck" if reason.startswith("stuck") else "ended wrongly"
                books.wrong(kind, job_id, f"{order.submission.work} {reason}")


def check_events(
    orders: Iterable[Order], stack: ChaosStack, incidents: Incidents, books: Books
) -> None:
    """Each followed job's present life has one end; who followed it saw all of it, once."""
    client = connect(stack.redis_settings)
    for order in orders:
        for job_id in order.job_ids & books.jobs.keys():
            job, entries = books.jobs[job_id], _events(client, stack, job_id)
            if not entries or not job["finished_at"]:
                continue
            ends = [data["state"] for _, name, data in entries if name == "done"]
            if ends != [job["state"]]:
                books.wrong("twice", job_id, f"{job['state']}, but its events end as {ends}")
            if incidents.lost(made_at(job_id), _ended_at(job, stack)):
                continue
            if order.seen and not order.retried and order.seen != [each[0] for each in entries]:
                books.wrong(
                    "events", job_id, f"the follower saw {len(order.seen)} of {len(entries)}"
                )
            if order.submission.streams and job["state"] == "succeeded":
                _check_stream(job, entries, books)
    client.close()


def check_ends(
    orders: Iterable[Order], stack: ChaosStack, incidents: Incidents, books: Books
) -> None:
    """What a client was told of an end stays so; and the ledger counts one end for each life."""
    for order in orders:
        told, known = order.told, order.job_ids & books.jobs.keys()
        if told is None or order.retried or incidents.lost(told.at - TELLING_SECONDS, told.at):
            continue
        for job in (books.jobs[job_id] for job_id in known):
            if (job["state"], job["finished_at"]) != (told.state, told.finished_at):
                now = f"{job['state']} at {job['finished_at']}"
                said = f"{told.state} at {told.finished_at}"
                books.wrong("twice", job["job_id"], f"{now}, and a client was told: {said}")
    counts, ledger = stack.ledger.counts(), stack.ledger
    begun = counts.total(JobEvent.ACCEPTED) + counts.total(JobEvent.REVIVED)
    ended = stack.ends()
    under_way = sum(bool(ledger.page(Filter(state=each), limit=1)[0]) for each in _UNDER_WAY)
    if ended != begun and not under_way:
        books.wrong("twice", "the ledger", f"{begun} lives of jobs, {ended} ends")


def check_crashes(stack: ChaosStack, incidents: Incidents, books: Books) -> None:
    """No job lost more workers than ended, or slept for longer than a lease, in its life."""
    deaths = [at for at, _ in stack.deaths]
    for job_id, job in books.jobs.items():
        crashes = stack.ledger.get(job_id).crashes
        if not crashes:
            continue
        books.crashes[job_id] = crashes
        since, until = made_at(job_id), _ended_at(job, stack)
        lease_seconds = stack.ledger_settings.lease_seconds
        possible = incidents.worker_losses(deaths, lease_seconds, since, until)
        if crashes > possible:
            books.wrong("crashed", job_id, f"{crashes} crashes, {possible} workers were lost")


def _ended_at(job: Json, stack: ChaosStack) -> float:
    """Return when a job ended, on the clock of this process."""
    if job["finished_at"] is None:
        return time.time()
    finished = datetime.fromisoformat(job["finished_at"]).timestamp()
    return stack.clock.to_own(finished, made_at(job["job_id"]))


def check_answers(orders: Iterable[Order], books: Books) -> None:
    """An echo says what it heard; a model says the same to the same question."""
    said: defaultdict[str, set[str]] = defaultdict(set)
    for order in orders:
        for job_id in order.job_ids & books.jobs.keys():
            job, body = books.jobs[job_id], order.submission.body
            if job["kind"] != "infer" or job["state"] != "succeeded":
                continue
            text = job["result"]["generated_text"]
            if "text" in body["data"] and text != body["data"]["text"]:
                books.wrong("answer", job_id, f"{text!r} to {body['data']['text']!r}")
            if "inputs" in body["data"]:
                asked = (body["model_name"], body["data"], body["options"])
                said[json.dumps(asked, sort_keys=True)].add(text)
    for asked_of, texts in said.items():
        if len(texts) > 1:
            books.wrong("answer", asked_of, f"{len(texts)} different answers")


async def _unknown(driver: Driver, books: Books, ids: Iterable[str]) -> list[str]:
    """Look at jobs, and return those that the front does not know."""
    gate, unknown = asyncio.Semaphore(_AT_ONCE), list[str]()

    async def look(job_id: str) -> None:
        async with gate:
            response = await driver.call("GET", f"/jobs/{job_id}")
        if response.status_code == 200:
            books.jobs[job_id] = response.json()
        else:
            unknown.append(job_id)

    await asyncio.gather(*(look(job_id) for job_id in ids))
    return unknown


Entry = tuple[str, str, Json]


def _events(client: "redis.Redis", stack: ChaosStack, job_id: str) -> list[Entry]:
    entries: Any = client.xrange(f"{schema_prefix(stack.ledger_settings)}:events:{job_id}")
    return [(event_id, each["event"], json.loads(each["data"])) for event_id, each in entries]


def _check_stream(job: Json, entries: list[Entry], books: Books) -> None:
    """The text after the last restart is the answer."""
    text = ""
    for _, name, data in entries:
        if name == "restart":
            text = ""
        elif name == "token":
            text += data["text"]
    if text != job["result"]["generated_text"]:
        said = job["result"]["generated_text"]
        books.wrong("answer", job["job_id"], f"streamed {text!r}, answered {said!r}")
