"""Where the reader of a job's events is: what both clients keep between two connections."""

import json

from httpx_sse import ServerSentEvent

from client.answers import Event, Job
from client.calls import Conversation, ask
from client.errors import StreamError
from client.operations.jobs import get
from client.retries import Pause, Retries

#: The API sends something at least every few seconds, be it that it is still there.
SILENCE_SECONDS = 30.0
#: Connections in a row that brought nothing.
_FRUITLESS = 10


class Following:
    """Yields a job's events to its end, those of the past first, each of them once.

    It goes on through any number of connections, behind the last event that came.
    """

    def __init__(self, retries: Retries, job: Job | str, after: str = "") -> None:
        self.job_id = job if isinstance(job, str) else job.job_id
        self.path = f"/jobs/{self.job_id}/events"
        self.over = False
        self._retries = retries
        self._last_id = after
        self._brought = False
        self._fruitless = 0

    @property
    def headers(self) -> dict[str, str]:
        """What the next connection says of the last one."""
        resume = {"Last-Event-ID": self._last_id} if self._last_id else {}
        return {"Accept": "text/event-stream", "Cache-Control": "no-store"} | resume

    def take(self, received: ServerSentEvent) -> Event | None:
        """Return the event that was received, and remember where to go on."""
        if not received.data:
            return None  # httpx-sse makes one of a comment behind an event that had an id
        self._last_id, self._brought = received.id, True
        self.over = received.event == "done"
        return Event(id=received.id, name=received.event, data=json.loads(received.data))

    def look(self) -> Conversation[Job]:
        """Ask for the job after a break: it waits out an API that is away."""
        return ask(get(self.job_id))

    def after_break(self, job: Job) -> Event | Pause:
        """Return the pause before the next connection; the end, of a job whose events are gone."""
        brought, self._brought = self._brought, False
        if not brought and job.state.terminal:
            self.over = True
            return Event(id=self._last_id, name="done", data={"state": job.state.value})
        self._fruitless = 0 if brought else self._fruitless + 1
        if self._fruitless > _FRUITLESS:
            raise StreamError(f"the events of job {self.job_id} cannot be read")
        return self._retries.pause(self._fruitless) if self._fruitless else Pause(0)
