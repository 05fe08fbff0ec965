"""A ledger on a Redis of its own, which says what each call costs it and is filled quickly."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from embedded.redis import redis_command
from shared.errors import ErrorInfo
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob, Want, connect
from shared.ledger.record import new_id
from shared.ledger.schema import schema_prefix
from shared.ledger.scripts import Operation
from shared.settings import LedgerSettings, RedisSettings
from tests.processes import free_port, running

MODELS, SUBMITTERS = 50, 20
#: By how much of what a ledger is filled with.
KINDS = (*[JobKind.INFER] * 6, JobKind.DOWNLOAD, JobKind.REGISTER, JobKind.UPLOAD, JobKind.IMPORT)
ENDS = (*[JobState.SUCCEEDED] * 5, JobState.FAILED, JobState.CANCELLED)
#: Jobs that are ended by the ledger; all others are copies of them.
TEMPLATES = 500
_COPIES = 100
JOB_RESULT = {
    "generated_text": "word " * 80,
    "metadata": {"input_tokens": 40, "output_tokens": 80, "inference_seconds": 0.5},
}
_ERROR = ErrorInfo(code="upstream", detail="the hub refused the download", retryable=False)
#: Copies an ended job. KEYS: the prefix. ARGV: its id, its scores by index (JSON), the new ids.
_COPY = """
local prefix, template, indices = KEYS[1], ARGV[1], cjson.decode(ARGV[2])
local job = redis.call('HGETALL', prefix .. ':job:' .. template)
local place_of_id
for place = 1, #job, 2 do if job[place] == 'id' then place_of_id = place + 1 end end
local request = redis.call('GET', prefix .. ':request:' .. template)
local result = redis.call('GET', prefix .. ':result:' .. template)
for place = 3, #ARGV do
  local id = ARGV[place]
  job[place_of_id] = id
  redis.call('HSET', prefix .. ':job:' .. id, unpack(job))
  redis.call('SET', prefix .. ':request:' .. id, request)
  if result then redis.call('SET', prefix .. ':result:' .. id, result) end
  for index, score in pairs(indices) do redis.call('ZADD', index, score, id) end
end
"""
_NOT_COUNTED = {"cmdstat_config", "cmdstat_config|resetstat", "cmdstat_info", "cmdstat_ping"}


def new_job(number: int, kind: JobKind = JobKind.INFER, image: str | None = None) -> NewJob:
    """Return a job; its model and its submitter depend on the number."""
    data = {"inputs": "word " * 40} if image is None else {"inputs": "?", "image": image}
    model = f"model-{number % MODELS}"
    return NewJob(
        kind=kind,
        request={
            "task": "text-generation",
            "engine": "transformers",
            "model_name": model,
            "data": data,
            "options": {"max_new_tokens": 50},
            "stream": False,
        },
        queue="inference",
        model=model,
        max_attempts=3,
        submitter=f"key-{number % SUBMITTERS}",
        lifetime_seconds=3600,
        affinity=f"{model}@production",
    )


class _WatchedLedger(Ledger):
    """A ledger that notes for how long its scripts hold Redis."""

    #: The longest, in milliseconds of Redis' own processor time.
    longest_ms = 0.0

    def _call(self, operation: Operation) -> tuple[Any, Any]:
        before = main_thread_seconds(self._redis)
        answer = super()._call(operation)
        held = (main_thread_seconds(self._redis) - before) * 1e3
        self.longest_ms = max(self.longest_ms, held)
        return answer


def main_thread_seconds(client: "redis.Redis") -> float:
    """Return the processor time of Redis' main thread.

    Other than the time that passes, it does not count what other programs of the machine take.
    """
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])


class LedgerServer:
    """A ledger, and the Redis behind it."""

    def __init__(self, url: str) -> None:
        self.settings = LedgerSettings(
            max_queued=10**7, max_queued_per_submitter=10**7, max_request_bytes=1 << 34
        )
        self.client = connect(RedisSettings.model_validate({"url": url, "timeout_seconds": 60}))
        self.ledger = Ledger(self.client, self.settings)
        self._prefix = schema_prefix(self.settings)
        self._jobs = 0
        #: Ended jobs, with their scores by index (JSON).
        self._templates: dict[str, str] = {}
        self._began = 0.0

    # ── what is measured ──────────────────────────────────────────────────────

    def reset(self) -> None:
        """Begin to measure."""
        self.client.config_resetstat()
        self._began = main_thread_seconds(self.client)

    def spent_microseconds(self) -> float:
        """Return the processor time of Redis since ``reset``."""
        return (main_thread_seconds(self.client) - self._began) * 1e6

    def calls(self) -> dict[str, int]:
        """Return how often each command ran since ``reset``, also within scripts."""
        stats = self.client.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): int(each["calls"])
            for name, each in stats.items()
            if name not in _NOT_COUNTED
        }

    def memory(self) -> int:
        """Return the bytes that Redis uses for data."""
        info = self.client.info("memory")
        # The buffers of clients and of the append-only file come and go.
        passing = ("mem_clients_normal", "mem_aof_buffer")
        return int(info["used_memory"]) - sum(int(info[name]) for name in passing)

    @contextmanager
    def watched(self) -> Iterator[_WatchedLedger]:
        """Give a ledger that notes for how long its scripts hold Redis."""
        yield _WatchedLedger(self.client, self.settings)

    # ── jobs ──────────────────────────────────────────────────────────────────

    def accept(self, number: int) -> list[NewJob]:
        """Accept so many jobs, each with an idempotency key."""
        jobs = [new_job(each) for each in range(number)]
        for job in jobs:
            self.ledger.accept(job, idempotency_key=str(uuid.uuid4()))
        self._jobs += number
        return jobs

    def claim(self, number: int = 1, queue: str = "inference") -> list[Job]:
        """Claim so many jobs."""
        return [job for _ in range(number) for job in self.ledger.claim(want(queue)).jobs]

    # ── state ─────────────────────────────────────────────────────────────────

    def fill(self, number: int) -> None:
        """Bring the number of jobs to this, mostly by copies of ended ones within Redis."""
        if not self._templates:
            self._templates = self._ended(min(TEMPLATES, number - self._jobs))
        copies = self.client.register_script(_COPY)
        while self._jobs < number:
            for template, indices in self._templates.items():
                ids = [new_id() for _ in range(min(_COPIES, number - self._jobs))]
                if ids:
                    copies([self._prefix], [template, indices, *ids])
                self._jobs += len(ids)

    def _ended(self, number: int) -> dict[str, str]:
        """End jobs by the ledger; return their ids with their scores by index (JSON)."""
        found: dict[str, dict[str, float]] = {}
        for place in range(number):
            job, _ = self.ledger.accept(new_job(place, KINDS[place % len(KINDS)]))
            end(self.ledger, *self.claim(), state=ENDS[place % len(ENDS)])
            found[job.id] = {}
        self._jobs += number
        for index in self.client.scan_iter(f"{self._prefix}:*", count=10_000, _type="zset"):
            pipe = self.client.pipeline(transaction=False)
            for job_id in found:
                pipe.zscore(index, job_id)
            for job_id, score in zip(found, pipe.execute(), strict=True):
                if score is not None:
                    found[job_id][str(index)] = score
        return {job_id: json.dumps(indices) for job_id, indices in found.items()}

    def expire(self, number: int) -> None:
        """Let the time of so many ended jobs be over."""
        expiries = f"{self._prefix}:expiries"
        ids = self.client.zrange(expiries, 0, number - 1)
        for start in range(0, len(ids), 1000):
            self.client.zadd(expiries, dict.fromkeys(map(str, ids[start : start + 1000]), 1))

    def reconcile_until(self, true: Callable[[], bool], most_seconds: float = 60) -> None:
        """Reconcile as one worker does, until something is true."""
        deadline = time.monotonic() + most_seconds
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {most_seconds} s")
            time.sleep(self.settings.reconcile_seconds)
            self.ledger.reconcile()


def want(queue: str) -> Want:
    """Return what the slot of a worker wants of a queue."""
    return Want(slot="worker/0", owner="worker", queues=(queue,))


def end(
    ledger: Ledger, job: Job, *, state: JobState = JobState.SUCCEEDED, then: str | None = None
) -> tuple[Job, ...]:
    """End a job, and claim the next of a queue in the same call if one is named."""
    result = JOB_RESULT if state is JobState.SUCCEEDED else None
    error = _ERROR if state is JobState.FAILED else None
    ended = ledger.finish(job, state, result=result, error=error, want=want(then) if then else None)
    return ended.claimed.jobs


@contextmanager
def ledger_server(directory: Path) -> Iterator[LedgerServer]:
    """Run a Redis for the length of a block."""
    port = free_port()
    place = directory / str(port)
    place.mkdir()
    command = [*redis_command(port, place), "--auto-aof-rewrite-percentage", "0"]
    with running(command, port=port, log=place / "redis.log"):
        yield LedgerServer(f"redis://127.0.0.1:{port}/0")
