"""A ledger on a Redis of its own, which is called in pipelines and filled quickly."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedded.redis import redis_command
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob, Want, connect
from shared.ledger.queries import Queries
from shared.ledger.record import Record, new_id
from shared.ledger.schema import schema_prefix
from shared.ledger.scripts import Operation, Scripts
from shared.settings import LedgerSettings, RedisSettings
from tests.processes import free_port, running

MODELS, SUBMITTERS = 50, 20
JOB_RESULT = {
    "generated_text": "word " * 80,
    "metadata": {"input_tokens": 40, "output_tokens": 80, "inference_seconds": 0.5},
}
#: Copies ended jobs: KEYS[1] the prefix; ARGV: id of the job, new ids. It finds by itself in which
#: indices the job is: those that the client names, with its score there.
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
  redis.call('SET', prefix .. ':result:' .. id, result)
  for index, score in pairs(indices) do redis.call('ZADD', index, score, id) end
end
"""
_COPIES = 100


def new_job(number: int, image: str | None = None) -> NewJob:
    """Return an infer job; its model and its submitter depend on the number."""
    data = {"inputs": "word " * 40} if image is None else {"inputs": "?", "image": image}
    model = f"model-{number % MODELS}"
    return NewJob(
        kind=JobKind.INFER,
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


class LedgerServer:
    """A ledger, and the Redis behind it."""

    def __init__(self, url: str) -> None:
        settings = LedgerSettings(
            lease_seconds=60,
            max_queued=10**7,
            max_queued_per_submitter=10**7,
            max_request_bytes=1 << 34,
        )
        self.client = connect(RedisSettings.model_validate({"url": url, "timeout_seconds": 60}))
        self.ledger = Ledger(self.client, settings)
        self._queries = Queries(settings)
        self._scripts = Scripts(settings)
        self._prefix = schema_prefix(settings)
        self._jobs = 0
        for name in ("accept", "claim", "finish"):
            self.client.script_load(self._scripts.find(name)[0])

    # ── what is measured ──────────────────────────────────────────────────────

    def reset(self) -> None:
        """Begin to measure."""
        self.client.config_resetstat()

    def spent(self, calls: int) -> tuple[float, float]:
        """Return the microseconds of Redis and its commands since ``reset``, per call."""
        stats = self.client.info("commandstats")
        own = {name: each for name, each in stats.items() if name not in _NOT_COUNTED}
        scripts = own.pop("cmdstat_evalsha", None)
        commands = sum(each["calls"] for each in own.values())
        microseconds = scripts["usec"] if scripts else sum(each["usec"] for each in own.values())
        return microseconds / calls, commands / calls

    def memory(self) -> int:
        """Return the bytes that Redis uses for data."""
        info = self.client.info("memory")
        # The buffers of clients and of the append-only file come and go.
        passing = ("mem_clients_normal", "mem_aof_buffer")
        return int(info["used_memory"]) - sum(int(info[name]) for name in passing)

    # ── operations, pipelined ─────────────────────────────────────────────────

    def accept(self, jobs: Sequence[NewJob], *, keys: bool = False) -> list[NewJob]:
        """Accept jobs, with idempotency keys if so told."""
        steps = [self._queries.accept(job, (), str(uuid.uuid4()) if keys else None) for job in jobs]
        calls = [next(step) for step in steps]
        self._call([call for call in calls if isinstance(call, Operation)])
        self._jobs += len(jobs)
        return list(jobs)

    def claim(self, number: int, queues: tuple[str, ...] = ("inference",)) -> list[Job]:
        """Claim so many jobs."""
        return _jobs(self._call([Operation("claim", (), _want(queues)) for _ in range(number)]))

    def finish(
        self, jobs: Sequence[Job], *, claims: bool = False, state: JobState = JobState.SUCCEEDED
    ) -> list[Job]:
        """End jobs, and claim as many in the same calls if so told."""
        result = json.dumps(JOB_RESULT) if state is JobState.SUCCEEDED else ""
        error = (
            ""
            if result
            else json.dumps(
                {"code": "upstream", "detail": "the hub refused the download", "retryable": False}
            )
        )
        want = _want(("inference",)) if claims else None
        return _jobs(
            self._call(
                [
                    Operation(
                        "finish",
                        (job.id, job.fence, job.nonce, state.value, result, error),
                        _want(("inference",)) if want else None,
                    )
                    for job in jobs
                ]
            )
        )

    def batch(self, number: int) -> tuple[Job, list[NewJob]]:
        """Accept a batch of downloads."""
        children = [
            NewJob(
                kind=JobKind.DOWNLOAD,
                request={"model_source": "huggingface", "model_name": f"organisation/model-{each}"},
                queue="download",
                model=f"organisation/model-{each}",
                max_attempts=3,
                submitter="key-1",
            )
            for each in range(number)
        ]
        parent = NewJob(
            kind=JobKind.BATCH_DOWNLOAD,
            request={"downloads": [child.request for child in children]},
            queue="",
            model="",
            max_attempts=1,
            submitter="key-1",
        )
        return self.ledger.accept(parent, children)[0], children

    def _call(self, operations: Sequence[Operation]) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for operation in operations:
            _, digest = self._scripts.find(operation.name)
            pipe.evalsha(digest, 1, self._prefix, *self._scripts.arguments(operation))
        return pipe.execute()

    # ── state ─────────────────────────────────────────────────────────────────

    def fill(self, number: int) -> None:
        """Bring the number of jobs to this, mostly by copies of ended ones within Redis."""
        templates = self._templates(min(MODELS * SUBMITTERS, number - self._jobs))
        copies = self.client.register_script(_COPY)
        while self._jobs < number:
            for template, indices in templates.items():
                ids = [new_id() for _ in range(min(_COPIES, number - self._jobs))]
                if ids:
                    copies([self._prefix], [template, indices, *ids])
                self._jobs += len(ids)

    def _templates(self, number: int) -> dict[str, str]:
        """End jobs by the real scripts; return their ids with their scores by index (JSON)."""
        self.accept([new_job(each) for each in range(number)])
        jobs = self.claim(number)
        self.finish(jobs)
        found: dict[str, dict[str, float]] = {job.id: {} for job in jobs}
        for index in self.client.scan_iter(count=10_000, _type="zset"):
            pipe = self.client.pipeline(transaction=False)
            for job_id in found:
                pipe.zscore(index, job_id)
            for job_id, score in zip(found, pipe.execute(), strict=True):
                if score is not None:
                    found[job_id][str(index)] = score
        return {job_id: json.dumps(indices) for job_id, indices in found.items()}

    def expire(self, number: int) -> None:
        """Make the time of so many ended jobs over."""
        expiries = f"{self._prefix}:expiries"
        ids = self.client.zrange(expiries, 0, number - 1)
        for start in range(0, len(ids), 1000):
            piece = [str(job_id) for job_id in ids[start : start + 1000]]
            self.client.zadd(expiries, dict.fromkeys(piece, 1))

    def until(
        self, true: Callable[[], bool], pause_seconds: float = 0.1, most_seconds: float = 60
    ) -> None:
        """Reconcile until something is true."""
        deadline = time.monotonic() + most_seconds
        while not true() and time.monotonic() < deadline:
            self.ledger.reconcile()
            time.sleep(pause_seconds)


_NOT_COUNTED = {"cmdstat_config|resetstat", "cmdstat_config", "cmdstat_info", "cmdstat_ping"}


def _want(queues: tuple[str, ...]) -> Want:
    return Want(slot="worker/0", owner="worker", queues=queues)


def _jobs(answers: Sequence[Any]) -> list[Job]:
    return [
        Record.of(record).job()
        for _, claimed in answers
        for record in (claimed[0] if claimed else [])
    ]


@contextmanager
def ledger_server(directory: Path) -> Iterator[LedgerServer]:
    """Run a Redis for the length of a block."""
    port = free_port()
    place = directory / str(port)
    place.mkdir()
    command = [
        *redis_command(port, place),
        *("--slowlog-log-slower-than", "1000", "--slowlog-max-len", "1000"),
        *("--auto-aof-rewrite-percentage", "0"),
    ]
    with running(command, port=port, log=place / "redis.log"):
        yield LedgerServer(f"redis://127.0.0.1:{port}/0")
