"""An Ollama worker beside the others: its queue, its slots, and what they are for."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.ollama_server import OllamaTestServer
from tests.platform import Json, Platform
from tests.processes import wait_until

PARALLEL = 8
TOKEN_SECONDS = 0.05
TOKENS = 32
REQUESTS = 32
#: The server says it back, a word a token.
PROMPT = " ".join(map(str, range(TOKENS)))


@pytest.fixture(scope="module")
def model(platform: Platform) -> str:
    platform.done(
        "/models/register_ollama",
        local_model_name="echo:0.5b",
        registered_name="echo-slots",
        stage="production",
    )
    return "echo-slots"


@pytest.fixture
def worker(platform: Platform) -> Iterator[None]:
    platform.start("ollama")
    wait_until(
        lambda: "ollama" in _kinds(platform), 30, "the Ollama worker has said that it is there"
    )
    try:
        yield
    finally:
        platform.stop("ollama")


def _kinds(platform: Platform) -> set[str]:
    names = platform.http.get("/inference/health").raise_for_status().json()["workers"]
    return {name.partition("@")[0] for name in names}


def _stats(platform: Platform) -> Json:
    """Return what the Ollama worker reports."""
    workers = platform.http.get("/inference/stats").raise_for_status().json()["workers"]
    return next(said for name, said in workers.items() if name.startswith("ollama@"))


def question(model: str, tokens: int = 4) -> dict[str, Any]:
    return {
        "task": "text-generation",
        "engine": "ollama",
        "model_name": model,
        "data": {"inputs": PROMPT},
        "options": {"num_predict": tokens, "temperature": 0},
    }


def ask(platform: Platform, model: str, tokens: int = 4) -> Json:
    return platform.ended(platform.submit("/inference/infer", **question(model, tokens))["job_id"])


def test_its_jobs_are_its_own_and_gpu_workers_do_them_without_it(
    platform: Platform, model: str, worker: None
) -> None:
    job = ask(platform, model)
    assert (job["queue"], job["worker"].partition("@")[0]) == ("inference-ollama", "ollama")
    wait_until(lambda: _stats(platform)["succeeded"] == 1, 30, "its report counts the request")
    assert _stats(platform)["handlers"] == ["text-generation:ollama"]

    platform.stop("ollama")
    # The choice of a queue may be a second old.
    wait_until(lambda: ask(platform, model)["queue"] == "inference", 30, "it goes to GPU workers")
    platform.start("ollama")


def test_an_answer_whose_runner_dies_starts_again_and_says_so(
    platform: Platform, ollama: OllamaTestServer, model: str, worker: None
) -> None:
    ollama.token_seconds = TOKEN_SECONDS
    try:
        body = question(model, TOKENS) | {"stream": True}
        job_id = platform.submit("/inference/infer", **body)["job_id"]
        platform.wait_for(job_id, "token")
        ollama.kill_runner("echo:0.5b")
        job = platform.ended(job_id)
    finally:
        ollama.token_seconds = 0.0
    events = list(platform.events(job_id))
    (restart,) = [number for number, (name, _) in enumerate(events) if name == "restart"]
    assert any(name == "token" for name, _ in events[:restart])
    text = "".join(data["text"] for name, data in events[restart:] if name == "token")
    assert text == job["result"]["generated_text"] == PROMPT


@pytest.mark.long
def test_it_uses_what_ollama_serves_in_parallel(
    platform: Platform,
    ollama: OllamaTestServer,
    model: str,
    worker: None,
    figure: Callable[[str], None],
) -> None:
    ollama.num_parallel, ollama.token_seconds = PARALLEL, TOKEN_SECONDS
    try:
        with httpx.Client(base_url=ollama.url, timeout=120) as client:
            direct = _tokens_per_second(lambda: _ask_directly(client))
        ours = _tokens_per_second(lambda: _tokens_of(ask(platform, model, TOKENS)))
    finally:
        ollama.num_parallel, ollama.token_seconds = 1, 0.0
    figure(
        f"ollama: {REQUESTS} requests at once, {PARALLEL} parallel slots: {ours:.1f} tokens/s, "
        f"{direct:.1f} asked directly ({ours / direct:.2f})"
    )
    assert ours >= 0.9 * direct


def _tokens_per_second(ask_once: Callable[[], int]) -> float:
    ask_once()  # loads the model
    began = time.monotonic()
    with ThreadPoolExecutor(REQUESTS) as pool:
        tokens = sum(pool.map(lambda _: ask_once(), range(REQUESTS)))
    return tokens / (time.monotonic() - began)


def _ask_directly(client: httpx.Client) -> int:
    options = {"num_predict": TOKENS, "temperature": 0}
    body = {"model": "echo:0.5b", "prompt": PROMPT, "options": options, "stream": False}
    answer = client.post("/api/generate", json=body)
    return int(answer.raise_for_status().json()["eval_count"])


def _tokens_of(job: Json) -> int:
    return int(job["result"]["metadata"]["output_tokens"])
