"""The clients: honest, impatient, sometimes gone before the answer."""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.submissions import Submission

Json = dict[str, Any]

#: Between two tries of a call that got no answer; it doubles with each, up to the patience.
RETRY_SECONDS = 0.5
#: A front that says Retry-After is believed up to this.
PATIENCE_SECONDS = 8.0
#: An answer that is not waited for must come within this.
ANSWER_SECONDS = 15.0
#: Clients who go away do so after this.
ABANDON_SECONDS = 0.01


@dataclass(frozen=True)
class Told:
    """How a job ended, as a client was told."""

    state: str
    finished_at: str
    #: When the client was told.
    at: float


@dataclass
class Order:
    """A submission, and what the client has seen of its job."""

    submission: Submission
    #: Ids of its job, and when the front had accepted it at the latest; there may be only one.
    accepted: dict[str, float] = field(default_factory=dict)
    #: The end of its job, where the answer to the submit told it.
    told: Told | None = None
    #: The front's refusal, if it refused what it should not.
    refused: str | None = None
    #: Whether a cancel was accepted.
    cancelled: bool = False
    #: Errors after which the client tried the job again.
    retried: list[str] = field(default_factory=list)
    #: Since when the job's present life counts.
    since: float = field(default_factory=time.time)
    #: Why the job's end is not one that it may have.
    wrong: str | None = None
    #: Ids of the events that a follower saw.
    seen: list[str] = field(default_factory=list)

    @property
    def job_ids(self) -> set[str]:
        """The ids of its job."""
        return set(self.accepted)

    @property
    def job_id(self) -> str:
        """The job's id; the one of the last answer."""
        return next(reversed(self.accepted))


def made_at(job_id: str) -> float:
    """Return when an API process made a job's id, just before it wrote the job down."""
    return int(job_id.replace("-", "")[:12], 16) / 1000


class Driver:
    """Sends what the schedule says, through a front that may be away."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=200)
        self._http = httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, limits=limits)
        self.orders: list[Order] = []
        #: Answers by status, and calls without one.
        self.answers: dict[str, int] = {}

    async def run(self, submissions: list[Submission]) -> None:
        """Send everything at its time; return when all is answered."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as clients:
            for submission in submissions:
                delay = began + submission.at - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, delay))
                order = Order(submission)
                self.orders.append(order)
                clients.create_task(self._client(order))

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make a call again until the front has an answer."""
        after = RETRY_SECONDS
        while True:
            after = min(2 * after, PATIENCE_SECONDS)
            try:
                response = await self._http.request(method, path, **options)
            except httpx.TransportError as error:
                self._count(type(error).__name__)
            else:
                self._count(str(response.status_code))
                if not _is_busy(response):
                    return response
                after = float(response.headers.get("Retry-After", after))
            # Clients that all come back at the same moment would be a fault of their own.
            await asyncio.sleep(min(after, PATIENCE_SECONDS) * random.uniform(0.5, 1))

    async def _client(self, order: Order) -> None:
        submission = order.submission
        if submission.abandons:
            await self._abandon(submission)
        sends = [self._submit(order) for _ in range(2 if submission.twice else 1)]
        await asyncio.gather(*sends)
        if order.refused or not order.job_ids:
            return
        following = asyncio.create_task(self._follow(order)) if submission.streams else None
        if submission.cancel_after is not None:
            await asyncio.sleep(submission.cancel_after)
            response = await self.call("POST", f"/jobs/{order.job_id}/cancel")
            # 409: it has ended, or our first cancel was heard and its answer lost.
            order.cancelled = response.status_code in {202, 409}
        if following is not None:
            await following

    async def _abandon(self, submission: Submission) -> None:
        """Go away before the answer comes; whether the job was accepted nobody knows."""
        with contextlib.suppress(TimeoutError, httpx.TransportError):
            async with asyncio.timeout(ABANDON_SECONDS):
                await self._http.post(
                    submission.call, json=submission.body, headers=_headers(submission)
                )
        await asyncio.sleep(RETRY_SECONDS)

    async def _submit(self, order: Order) -> None:
        submission = order.submission
        response = await self.call(
            "POST",
            submission.call,
            json=submission.body,
            headers=_headers(submission),
            params={"wait": submission.wait} if submission.wait else {},
            timeout=ANSWER_SECONDS + submission.wait,
        )
        # A job that failed while the client waited is answered with its problem.
        job, now = _document(response), time.time()
        if job_id := job.get("job_id"):
            order.accepted.setdefault(job_id, now)
            if job.get("finished_at"):
                order.told = Told(job["state"], job["finished_at"], now)
        else:
            order.refused = f"{response.status_code}: {response.text[:300]}"

    async def _follow(self, order: Order) -> None:
        """Follow a job to its end, through connections that break."""
        path, done = f"/jobs/{order.job_id}/events", False
        while not done:
            headers = {"Last-Event-ID": order.seen[-1]} if order.seen else {}
            try:
                async with self._http.stream("GET", path, headers=headers, timeout=30) as answer:
                    # 204: there is nothing more. 404: a failover of Redis lost the job.
                    done = answer.status_code in {204, 404} or (
                        answer.status_code == 200 and await _read(answer, order.seen)
                    )
            except httpx.TransportError as error:
                self._count(type(error).__name__)
            if not done:
                await asyncio.sleep(RETRY_SECONDS)

    def _count(self, answer: str) -> None:
        self.answers[answer] = self.answers.get(answer, 0) + 1


async def _read(answer: httpx.Response, seen: list[str]) -> bool:
    """Note the events of one connection; return whether the last one was among them."""
    event_id = name = ""
    async for line in answer.aiter_lines():
        if line.startswith("id:"):
            event_id = line[3:].strip()
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif not line and name:
            seen.append(event_id)
            if name == "done":
                return True
            name = ""
    return False


def _headers(submission: Submission) -> dict[str, str]:
    return {"Idempotency-Key": submission.key}


def _is_busy(response: httpx.Response) -> bool:
    """Return whether the front refused for now; a job that ended so is named in its problem."""
    return response.status_code in {429, 503} and "job_id" not in _document(response)


def _document(response: httpx.Response) -> Json:
    """Return an answer's JSON; nothing if it has none."""
    try:
        return dict(response.json())
    except ValueError:
        return {}
