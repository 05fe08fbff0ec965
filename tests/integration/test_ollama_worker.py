"""A real Ollama worker: its answers that start again, and how much of Ollama it uses."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob, Presence
from shared.ledger.schema import schema_prefix
from shared.queue import INFERENCE_OLLAMA
from shared.settings import LedgerSettings, RedisSettings
from tests.ollama_server import Model, OllamaTestServer, ollama_server
from tests.processes import start, stop, wait_until

PARALLEL, REQUESTS, TOKENS = 8, 32, 32
TOKEN_SECONDS = 0.05
#: Of which the best counts: the rest of a busy machine makes each of them slower.
ROUNDS = 3
START_SECONDS = 180
#: The server says it back, a word a token.
PROMPT = " ".join(map(str, range(TOKENS)))
OPTIONS = {"num_predict": TOKENS, "temperature": 0}


@pytest.fixture
def remote() -> Iterator[OllamaTestServer]:
    with ollama_server(Model("echo:0.5b")) as server:
        server.num_parallel, server.token_seconds = PARALLEL, TOKEN_SECONDS
        yield server


class Bench:
    """The ledger of an Ollama worker."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self._client = client
        self._prefix = schema_prefix(settings)
        self.ledger = Ledger(client, settings)

    def submit(self, *, stream: bool = False) -> str:
        request = {
            "task": "text-generation",
            "engine": "ollama",
            "model_name": "echo",
            "data": {"inputs": PROMPT},
            "options": OPTIONS,
            "stream": stream,
        }
        job = NewJob(
            kind=JobKind.INFER,
            request=request,
            queue=INFERENCE_OLLAMA,
            model="echo",
            max_attempts=3,
            priority=5,
            streams=stream,
        )
        return self.ledger.accept(job)[0].id

    def ended(self, job_id: str) -> Job:
        wait_until(lambda: self.ledger.ended(job_id), 120, "the job ends")
        return self.ledger.get(job_id)

    def events(self, job_id: str) -> list[dict[str, str]]:
        entries: Any = self._client.xrange(f"{self._prefix}:events:{job_id}")
        return [fields for _, fields in entries]


@pytest.fixture
def bench(
    tmp_path: Path,
    remote: OllamaTestServer,
    redis_client: "redis.Redis",
    redis_settings: RedisSettings,
    ledger_settings: LedgerSettings,
) -> Iterator[Bench]:
    prefix = ledger_settings.prefix
    env = {
        "REDIS_URL": redis_settings.url.get_secret_value(),
        "LEDGER_PREFIX": prefix,
        "LEDGER_BACKOFF_SECONDS": "0.2",
        "OLLAMA_HOST": remote.url,
        "OLLAMA_NUM_PARALLEL": str(PARALLEL),
    }
    command = [sys.executable, "-m", "tests.ollama_worker", "ollama", "--name", f"ollama@{prefix}"]
    worker = start(command, log=tmp_path / "worker.log", env=env)
    presence = Presence(redis_client, LedgerSettings(prefix=prefix))
    try:
        wait_until(presence.workers, START_SECONDS, "the worker is there")
        yield Bench(redis_client, LedgerSettings(prefix=prefix))
    finally:
        stop(worker)


def test_an_answer_whose_runner_dies_starts_again_and_says_so_once(
    bench: Bench, remote: OllamaTestServer
) -> None:
    job_id = bench.submit(stream=True)
    wait_until(lambda: "token" in [each["event"] for each in bench.events(job_id)], 60, "text")
    remote.kill_runner("echo:0.5b")
    job = bench.ended(job_id)
    assert job.state is JobState.SUCCEEDED, job
    events = bench.events(job_id)
    names = [each["event"] for each in events]
    assert names.count("restart") == 1
    restart = names.index("restart")
    assert "token" in names[:restart]
    said = [each["data"] for each in events[restart:] if each["event"] == "token"]
    assert "".join(json.loads(data)["text"] for data in said) == PROMPT


@pytest.mark.long
def test_it_uses_what_ollama_serves_in_parallel(
    bench: Bench, remote: OllamaTestServer, figure: Callable[[str], None]
) -> None:
    with httpx.Client(base_url=remote.url, timeout=120) as client:
        _ask_directly(client)  # loads the model
        bench.ended(bench.submit())
        rounds = [
            (_per_second(lambda: _all_through(bench)), _per_second(lambda: _all_directly(client)))
            for _ in range(ROUNDS)
        ]
    ours, direct = map(max, zip(*rounds, strict=True))
    figure(
        f"ollama: {REQUESTS} requests at once, {PARALLEL} parallel slots: {ours:.1f} tokens/s, "
        f"{direct:.1f} asked directly ({ours / direct:.2f})"
    )
    assert ours >= 0.9 * direct


def _per_second(generate: Callable[[], int]) -> float:
    began = time.monotonic()
    return generate() / (time.monotonic() - began)


def _all_directly(client: httpx.Client) -> int:
    with ThreadPoolExecutor(REQUESTS) as pool:
        return sum(pool.map(lambda _: _ask_directly(client), range(REQUESTS)))


def _ask_directly(client: httpx.Client) -> int:
    # Without truncation and shifts, as the platform asks: otherwise the model is loaded again.
    asked = {"model": "echo:0.5b", "prompt": PROMPT, "options": OPTIONS, "stream": False}
    answer = client.post("/api/generate", json=asked | {"truncate": False, "shift": False})
    return int(answer.raise_for_status().json()["eval_count"])


def _all_through(bench: Bench) -> int:
    jobs = [bench.ended(job_id) for job_id in [bench.submit() for _ in range(REQUESTS)]]
    return sum((job.result or {})["metadata"]["output_tokens"] for job in jobs)
