"""What the platform needs of Ollama, on the test server.

With OLLAMA_HOST and OLLAMA_TEST_MODEL (one that the server has, with its tag) set, on a real one.
"""

import os
from collections.abc import Iterator

import pytest

from shared.cancellation import CancelToken
from shared.errors import NotFoundError
from shared.ollama import Ending, OllamaSampling, OllamaServer
from shared.settings import OllamaSettings
from tests.ollama_server import Model, ollama_server
from tests.processes import wait_until

PROMPT = "Count from one to thirty in words, one two three four five six seven"
CHAT = [
    {"role": "system", "content": "You answer at length."},
    {"role": "user", "content": PROMPT},
]


@pytest.fixture(scope="module", name="target")
def _target() -> Iterator[tuple[OllamaServer, str]]:
    """A server, and a model that it has."""
    model = os.environ.get("OLLAMA_TEST_MODEL")
    if model and os.environ.get("OLLAMA_HOST"):
        yield OllamaServer(OllamaSettings(timeout_seconds=60)), model
        return
    with ollama_server(Model("echo:1b")) as server:
        server.library["echo:1b"] = Model("echo:1b")
        yield OllamaServer(OllamaSettings(host=server.url)), "echo:1b"


@pytest.fixture
def server(target: tuple[OllamaServer, str]) -> OllamaServer:
    return target[0]


@pytest.fixture
def model(target: tuple[OllamaServer, str]) -> str:
    return target[1]


def generate(server: OllamaServer, model: str, **options: object) -> tuple[str, Ending]:
    sampling = OllamaSampling({"num_predict": 8, "seed": 7, **options})
    chunks = list(server.generate(model, PROMPT, sampling, CancelToken()))
    assert chunks[-1].ending is not None
    return "".join(chunk.text for chunk in chunks), chunks[-1].ending


def test_the_list_has_the_model_with_size_and_digest(server: OllamaServer, model: str) -> None:
    (listed,) = [each for each in server.models() if each.name == model]
    assert listed.size_bytes > 0
    assert int(listed.digest, 16)
    assert listed.modified_at.tzinfo is not None
    assert listed.family
    assert listed.parameter_size
    assert listed.quantization
    assert server.model(model) == listed


def test_a_model_is_found_in_any_spelling_of_its_name(server: OllamaServer, model: str) -> None:
    assert server.model(model.upper()).name == model
    assert server.model(f"registry.ollama.ai/library/{model}").name == model


def test_details_tell_parameters_and_capabilities(server: OllamaServer, model: str) -> None:
    details = server.show(model)
    assert details.parameter_count is not None
    assert details.parameter_count > 0
    assert "completion" in details.capabilities


def test_a_missing_model_is_named_and_how_to_get_it(server: OllamaServer) -> None:
    for ask in (server.model, server.show, server.unload):
        with pytest.raises(NotFoundError, match=r"no model 'none-such:9b'.*ollama pull") as missing:
            ask("none-such:9b")
        assert missing.value.specific_code == "model_not_found"


def test_a_missing_model_cannot_be_asked(server: OllamaServer) -> None:
    sampling, token = OllamaSampling(), CancelToken()
    with pytest.raises(NotFoundError, match="no model 'none-such:9b'"):
        list(server.generate("none-such:9b", "hello", sampling, token))
    with pytest.raises(NotFoundError, match="no model 'none-such:9b'"):
        list(server.chat("none-such:9b", CHAT, sampling, token))


def test_an_answer_comes_in_pieces_and_says_how_it_ended(server: OllamaServer, model: str) -> None:
    chunks = list(server.generate(model, PROMPT, OllamaSampling({"num_predict": 4}), CancelToken()))
    assert sum(bool(chunk.text or chunk.thinking) for chunk in chunks) > 1
    assert [chunk.ending is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    ending = chunks[-1].ending
    assert ending is not None
    assert ending.reason == "length"
    assert ending.output_tokens == 4
    assert ending.input_tokens > 0


def test_a_chat_is_answered(server: OllamaServer, model: str) -> None:
    chunks = list(server.chat(model, CHAT, OllamaSampling({"num_predict": 4}), CancelToken()))
    assert "".join(chunk.text + chunk.thinking for chunk in chunks)
    assert chunks[-1].ending is not None
    assert chunks[-1].ending.input_tokens > 0


def test_a_seed_makes_an_answer_repeatable(server: OllamaServer, model: str) -> None:
    assert generate(server, model, seed=3)[0] == generate(server, model, seed=3)[0]


def test_an_answer_ends_before_a_stop_string(server: OllamaServer, model: str) -> None:
    whole, _ = generate(server, model, temperature=0)
    stop = whole.split()[-1]
    text, ending = generate(server, model, temperature=0, stop=[stop])
    assert ending.reason == "stop"
    assert stop not in text
    assert whole.startswith(text)


def test_a_model_is_in_memory_until_it_is_unloaded(server: OllamaServer, model: str) -> None:
    def is_loaded() -> bool:
        return model in {loaded.name for loaded in server.loaded()}

    generate(server, model, num_predict=1)
    assert is_loaded()
    server.unload(model)
    wait_until(lambda: not is_loaded(), what="the model is unloaded")


def test_health_is_the_time_of_an_answer(server: OllamaServer) -> None:
    assert server.health() > 0


def test_a_pull_of_what_is_there_ends_complete(server: OllamaServer, model: str) -> None:
    reports: list[tuple[int, int | None, str]] = []
    pulled = server.pull(model, CancelToken(), lambda *report: reports.append(report))
    assert reports[-1] == (pulled.size_bytes, pulled.size_bytes, "success")
    assert pulled.size_bytes == server.model(model).size_bytes
    assert pulled.files > 1


def test_a_pull_of_what_does_not_exist_says_so(server: OllamaServer) -> None:
    with pytest.raises(NotFoundError, match="library has no model 'none-such-at-all:9b'"):
        server.pull("none-such-at-all:9b", CancelToken(), lambda *_: None)
