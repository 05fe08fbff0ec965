"""The platform's public HTTP API, as the demonstration uses it: submit a job, follow its events."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel

from embedded.errors import DemoError
from shared.errors import ErrorInfo
from shared.jobs import JobState

#: Events come at least this often: those of the job, or comments that say that it is still there.
_SILENCE_SECONDS = 30
_RECONNECTS = 10


class Links(BaseModel):
    """Where to go on with a job."""

    self: str
    events: str


class JobAnswer(BaseModel):
    """What the demonstration reads of a job."""

    job_id: str
    state: JobState
    result: dict[str, Any] | None = None
    error: ErrorInfo | None = None
    links: Links


@dataclass(frozen=True)
class JobEvent:
    """A server-sent event."""

    name: str
    data: dict[str, Any]


class PublicApi:
    """A client of one API."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def submit(self, path: str, body: Mapping[str, Any]) -> JobAnswer:
        """Submit a job."""
        answer = await self._client.post(path, json=body)
        if answer.is_error:
            raise DemoError(f"POST {path} answered {answer.status_code}: {_detail(answer)}")
        return JobAnswer.model_validate_json(answer.content)

    async def follow(self, job: JobAnswer) -> AsyncIterator[JobEvent]:
        """Yield the job's events to its end; goes on where it was when the connection breaks."""
        last_id = ""
        for _ in range(_RECONNECTS):
            async for event_id, event in self._stream(job.links.events, last_id):
                last_id = event_id
                yield event
                if event.name == "done":
                    return
        raise DemoError(f"the events of job {job.job_id} ended without its end")

    async def result(self, job: JobAnswer) -> dict[str, Any]:
        """Return what a job that has ended brought; raise what it failed with."""
        answer = (await self._client.get(job.links.self)).raise_for_status()
        ended = JobAnswer.model_validate_json(answer.content)
        if ended.state is not JobState.SUCCEEDED or ended.result is None:
            why = ended.error.detail if ended.error else "no reason given"
            raise DemoError(f"job {job.job_id} {ended.state.value}: {why}")
        return ended.result

    async def _stream(self, path: str, last_id: str) -> AsyncIterator[tuple[str, JobEvent]]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        fields: dict[str, str] = {}
        try:
            async with self._client.stream(
                "GET", path, headers=headers, timeout=_SILENCE_SECONDS
            ) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    name, _, value = line.partition(":")
                    if line:
                        fields[name] = value.removeprefix(" ")
                    elif "event" in fields:
                        data = json.loads(fields["data"])
                        yield fields.get("id", ""), JobEvent(fields["event"], data)
                        fields = {}
        except httpx.TransportError:
            return


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
