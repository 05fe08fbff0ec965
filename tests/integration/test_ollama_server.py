"""The test server behaves like Ollama where the platform depends on it.

With OLLAMA_HOST and OLLAMA_TEST_MODEL set, the tests that need only one model run on a real one.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import httpx
import pytest

from tests.ollama_server import Model, OllamaTestServer, ollama_server
from tests.processes import wait_until

MODEL = "echo:1b"
LONG = "word " * 600
#: Far more than any of these calls takes.
PATIENCE_SECONDS = 120


@dataclass
class Direct:
    """A server that is asked without the platform."""

    url: str
    model: str

    def post(self, path: str, **body: object) -> httpx.Response:
        body = {"model": self.model} | body
        return httpx.post(f"{self.url}{path}", json=body, timeout=PATIENCE_SECONDS)

    def generate(self, prompt: str = "one two three", **body: object) -> httpx.Response:
        return self.post("/api/generate", prompt=prompt, stream=False, **body)

    def lines(self, prompt: str, **body: object) -> list[dict[str, Any]]:
        answer = self.post("/api/generate", prompt=prompt, **body)
        return [json.loads(line) for line in answer.text.splitlines()]

    def running(self) -> list[dict[str, Any]]:
        found = httpx.get(f"{self.url}/api/ps", timeout=PATIENCE_SECONDS).json()["models"]
        return [each for each in found if each["name"] == self.model]


@pytest.fixture
def server() -> Iterator[OllamaTestServer]:
    with ollama_server(Model(MODEL)) as server:
        yield server


@pytest.fixture
def direct(server: OllamaTestServer) -> Direct:
    return Direct(server.url, MODEL)


@pytest.fixture(scope="module")
def real() -> Iterator[Direct]:
    """The test server, or a real one."""
    model, host = os.environ.get("OLLAMA_TEST_MODEL"), os.environ.get("OLLAMA_HOST")
    if model and host:
        yield Direct(host, model)
        return
    with ollama_server(Model(MODEL)) as server:
        yield Direct(server.url, MODEL)


def test_a_prompt_longer_than_the_context_is_cut(real: Direct) -> None:
    answer = real.generate(LONG, options={"num_ctx": 512, "num_predict": 4}).json()
    assert 0 < answer["prompt_eval_count"] <= 512


def test_it_is_refused_where_the_request_says_so(real: Direct) -> None:
    answer = real.generate(LONG, options={"num_ctx": 512}, truncate=False, shift=False)
    assert answer.status_code == 400
    assert "exceed" in answer.json()["error"]


def test_an_answer_ends_at_the_context_without_shift(real: Direct) -> None:
    options = {"num_ctx": 512, "temperature": 0}
    answer = real.generate("word " * 400, options=options, truncate=False, shift=False).json()
    assert answer["prompt_eval_count"] + answer["eval_count"] <= 512


def test_a_context_beyond_the_models_own_is_reduced(real: Direct) -> None:
    shown = real.post("/api/show").json()["model_info"]
    own = shown[f"{shown['general.architecture']}.context_length"]
    real.generate(options={"num_ctx": own + 1000, "num_predict": 1})
    assert real.running()[0]["context_length"] == own


def test_a_loaded_model_tells_size_digest_and_when_it_goes(real: Direct) -> None:
    real.generate(options={"num_predict": 1}, keep_alive="10m")
    (running,) = real.running()
    listed = httpx.get(f"{real.url}/api/tags").json()["models"]
    assert running["digest"] in {each["digest"] for each in listed if each["name"] == real.model}
    assert running["size"] > 0
    assert 0 <= running["size_vram"] <= running["size"]
    left = datetime.fromisoformat(running["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=5) < left <= timedelta(minutes=10)
    real.generate(options={"num_predict": 1}, keep_alive=-1)
    left = datetime.fromisoformat(real.running()[0]["expires_at"]) - datetime.now(UTC)
    assert left > timedelta(days=365)


def test_a_model_goes_with_its_time_or_when_it_is_told_to(real: Direct) -> None:
    real.generate(options={"num_predict": 1}, keep_alive="100ms")
    wait_until(lambda: not real.running(), what="its time is over")
    real.post("/api/generate", keep_alive="10m")
    assert real.running()
    assert real.post("/api/generate", keep_alive=0).json()["done_reason"] == "unload"
    wait_until(lambda: not real.running(), what="it is unloaded")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"think": True}, "does not support thinking"),
        ({"keep_alive": "soon"}, "invalid duration"),
        ({"format": "xml"}, "invalid format"),
        ({"options": {"temperature": 1e40}}, "unsupported value: +Inf"),
        ({"options": {"num_ctx": "many"}}, "must be of type integer"),
    ],
)
def test_what_it_cannot_do_is_refused(real: Direct, body: dict[str, Any], words: str) -> None:
    answer = real.generate(**body)
    assert answer.status_code >= 400
    assert words in answer.json()["error"]


def test_the_sha256_of_the_file_is_shown_and_differs_from_the_digest(real: Direct) -> None:
    shown = real.post("/api/show").json()["modelfile"]
    (line,) = [each for each in shown.splitlines() if each.startswith("FROM ")]
    sha256 = line.rpartition("sha256-")[2]
    assert len(bytes.fromhex(sha256)) == 32
    listed = httpx.get(f"{real.url}/api/tags").json()["models"]
    assert sha256 not in {each["digest"] for each in listed}


def test_a_runner_that_dies_takes_all_its_streams_with_it(
    server: OllamaTestServer, direct: Direct
) -> None:
    server.num_parallel, server.token_seconds = 2, 0.05
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(direct.lines, "word " * 1000) for _ in range(2)]
        wait_until(lambda: len(server.bodies("/api/generate")) == 2, what="both are there")
        waits = pool.submit(direct.generate, "one two")
        wait_until(lambda: len(server.bodies("/api/generate")) == 3, what="all are there")
        server.kill_runner(MODEL)
        for stream in streams:
            lines = stream.result(PATIENCE_SECONDS)
            assert "an error was encountered while running" in lines[-1]["error"]
        assert waits.result(PATIENCE_SECONDS).status_code == 500
    server.token_seconds = 0
    assert direct.generate("one", options={"temperature": 0}).json()["response"] == "one"


def test_a_repeat_penalty_of_0_kills_the_runner(server: OllamaTestServer, direct: Direct) -> None:
    direct.generate()
    answer = direct.generate(options={"repeat_penalty": 0})
    assert answer.status_code == 500
    assert not server.loaded


def test_requests_take_turns_in_the_slots(server: OllamaTestServer, direct: Direct) -> None:
    def took(slots: int) -> float:
        server.num_parallel = slots
        direct.post("/api/generate", keep_alive=0)
        started = perf_counter()
        with ThreadPoolExecutor() as pool:
            for answer in [pool.submit(direct.generate, "a b c d") for _ in range(4)]:
                assert answer.result(PATIENCE_SECONDS).status_code == 200
        return perf_counter() - started

    server.token_seconds = 0.1
    in_turn, together = took(1), took(4)
    assert in_turn > 4 * 4 * 0.1
    assert together < in_turn


def test_two_names_on_one_file_share_a_runner(server: OllamaTestServer, direct: Direct) -> None:
    other = Direct(server.url, "other:latest")
    assert direct.post("/api/copy", source=MODEL, destination="other").status_code == 200
    assert server.models["other:latest"].digest == server.models[MODEL].digest
    direct.generate()
    other.generate()
    assert server.loaded == [MODEL]
    other.post("/api/generate", keep_alive=0)
    assert not server.loaded


def test_other_options_of_the_process_load_the_model_again(
    server: OllamaTestServer, direct: Direct
) -> None:
    for body in ({}, {"options": {"num_ctx": 64}}, {"shift": False}, {"shift": False}):
        direct.generate(**body)
        assert server.loaded == [MODEL]
    assert direct.running()[0]["context_length"] == 4096


def test_a_model_is_replaced_under_its_name(server: OllamaTestServer, direct: Direct) -> None:
    before = server.models[MODEL]
    server.have(replace(before, content="another"))
    assert server.models[MODEL].digest != before.digest
    assert server.models[MODEL].blob in direct.post("/api/show").json()["modelfile"]


def test_a_model_is_created_from_a_file(server: OllamaTestServer, direct: Direct) -> None:
    data = b"GGUF and more"
    sha256 = hashlib.sha256(data).hexdigest()
    blob = f"{server.url}/api/blobs/sha256:{sha256}"
    assert httpx.head(blob).status_code == 404
    assert httpx.post(blob, content=data).status_code == 201
    assert httpx.head(blob).status_code == 200
    files = {"m.gguf": f"sha256:{sha256}"}
    made = httpx.post(f"{server.url}/api/create", json={"model": "made:1", "files": files})
    assert json.loads(made.text.splitlines()[-1]) == {"status": "success"}
    shown = Direct(server.url, "made:1").post("/api/show").json()
    assert f"sha256-{sha256}" in shown["modelfile"]
    assert shown["details"]["parent_model"].endswith(f"sha256-{sha256}")
    failed = httpx.post(f"{server.url}/api/create", json={"model": "x", "from": "nobody"})
    assert "error" in json.loads(failed.text.splitlines()[-1])


def test_a_broken_file_is_shown_and_not_loaded(server: OllamaTestServer, direct: Direct) -> None:
    server.have(Model(MODEL, broken=True))
    assert direct.post("/api/show").status_code == 200
    assert direct.generate().status_code == 500


def test_a_registry_that_is_away_is_an_error_inside_the_stream(
    server: OllamaTestServer, direct: Direct
) -> None:
    server.registry_fails = "dial tcp: lookup registry.ollama.ai: no such host"
    answer = direct.post("/api/pull")
    assert answer.status_code == 200
    assert "no such host" in json.loads(answer.text.splitlines()[-1])["error"]
