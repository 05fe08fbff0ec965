"""An Ollama worker beside the others: its queue, and what becomes of it without the worker."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.platform import Json, Platform
from tests.processes import wait_until


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


def question(model: str) -> dict[str, Any]:
    return {
        "task": "text-generation",
        "engine": "ollama",
        "model_name": model,
        "data": {"inputs": "one two three"},
        "options": {"num_predict": 4, "temperature": 0},
    }


def ask(platform: Platform, model: str) -> Json:
    return platform.ended(platform.submit("/inference/infer", **question(model))["job_id"])


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
