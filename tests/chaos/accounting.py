"""The books: every accepted job is looked at, with what its events say and what it answered."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import redis

from shared.ledger import connect
from tests.chaos.driver import Driver, Order
from tests.chaos.judge import Judge
from tests.chaos.stack import ChaosStack

Json = dict[str, Any]

_AT_ONCE = 16
_PAGE = 500


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


async def look_at_all(driver: Driver, books: Books, before: set[str]) -> None:
    """Look at every job that a client knows; there are no others but those from ``before``."""
    ids = {job_id for order in driver.orders for job_id in order.job_ids}
    await _look(driver, books, ids)
    children = {child for job in books.jobs.values() for child in job["children"]}
    await _look(driver, books, children)
    async for job in all_jobs(driver):
        if job["job_id"] not in ids | children | before:
            books.wrong("nobody's", job["job_id"], f"a {job['kind']} that nobody submitted")


def judge_all(orders: Iterable[Order], judge: Judge, books: Books) -> None:
    """Note what should not have ended as it did."""
    for order in orders:
        if order.refused:
            books.wrong("refused", order.submission.key, order.refused)
        if len(order.job_ids) > 1:
            books.wrong("twice", order.submission.key, f"one key, {len(order.job_ids)} jobs")
        for job_id in order.job_ids & books.jobs.keys():
            job = books.jobs[job_id]
            books.ends[order.submission.work, job["state"]] += 1
            if reason := order.wrong or judge.verdict(order, job):
                kind = "stuck" if reason.startswith("stuck") else "ended wrongly"
                books.wrong(kind, job_id, f"{order.submission.work} {reason}")


def check_events(orders: Iterable[Order], stack: ChaosStack, books: Books) -> None:
    """Each job's present life has one end; who followed it saw all of it, once."""
    client = connect(stack.redis_settings)
    for order in orders:
        for job_id in order.job_ids & books.jobs.keys():
            entries = _events(client, stack, job_id)
            job, ends = (
                books.jobs[job_id],
                [data["state"] for _, name, data in entries if name == "done"],
            )
            if job["finished_at"] and ends != [job["state"]]:
                books.wrong("twice", job_id, f"{job['state']}, but its events end as {ends}")
            if order.seen and not order.retried and order.seen != [each[0] for each in entries]:
                books.wrong(
                    "events", job_id, f"the follower saw {len(order.seen)} of {len(entries)}"
                )
            if order.submission.streams and job["state"] == "succeeded":
                _check_stream(job, entries, books)
    client.close()


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


async def _look(driver: Driver, books: Books, ids: Iterable[str]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(job_id: str) -> None:
        async with gate:
            response = await driver.call("GET", f"/jobs/{job_id}")
        if response.status_code == 200:
            books.jobs[job_id] = response.json()
        else:
            books.wrong("lost", job_id, f"the front answers {response.status_code}")

    await asyncio.gather(*(look(job_id) for job_id in ids))


Entry = tuple[str, str, Json]


def _events(client: "redis.Redis", stack: ChaosStack, job_id: str) -> list[Entry]:
    entries: Any = client.xrange(f"{stack.ledger_settings.prefix}:events:{job_id}")
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
