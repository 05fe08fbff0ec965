"""What goes wrong with Ollama, and how work on it is stopped."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    DeniedError,
    InsufficientDiskError,
    InvalidInputError,
    LifecycleError,
    ModelLoadError,
    NotFoundError,
    OutOfMemoryError,
    RequestError,
    UnavailableError,
    UnsupportedTaskError,
)
from shared.ollama import OllamaSampling, OllamaServer
from shared.settings import OllamaSettings
from tests.ollama_server import Fault, FaultKind, Model, OllamaTestServer, ollama_server
from tests.processes import free_port
from tests.switched_proxy import switched_proxy

MODEL = "echo:1b"
GENERATE, CHAT, PULL, TAGS = "/api/generate", "/api/chat", "/api/pull", "/api/tags"
STOP = CancelledError("by the test")
#: For what a test expects another thread to do; far more than it takes.
PATIENCE_SECONDS = 60


@pytest.fixture
def remote() -> Iterator[OllamaTestServer]:
    with ollama_server(Model(MODEL)) as server:
        server.library[MODEL] = Model(MODEL)
        yield server


@pytest.fixture
def server(remote: OllamaTestServer) -> OllamaServer:
    return OllamaServer(OllamaSettings(host=remote.url))


def generate(server: OllamaServer, token: CancelToken | None = None) -> list[str]:
    prompt, sampling = "one two three four", OllamaSampling({"temperature": 0})
    stream = server.generate(MODEL, prompt, sampling, token or CancelToken())
    return [chunk.text for chunk in stream]


def chat(server: OllamaServer, token: CancelToken | None = None) -> list[str]:
    messages = [{"role": "user", "content": "one two three four"}]
    stream = server.chat(MODEL, messages, OllamaSampling(), token or CancelToken())
    return [chunk.text for chunk in stream]


def pull(server: OllamaServer, token: CancelToken | None = None) -> None:
    server.pull(MODEL, token or CancelToken(), lambda *_: None)


WORKS = pytest.mark.parametrize(
    ("work", "path"), [(generate, GENERATE), (chat, CHAT), (pull, PULL)]
)
Work = Callable[[OllamaServer, CancelToken], object]


def test_a_stream_of_a_server_that_froze_is_an_outage(
    remote: OllamaTestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.ollama.streams.SILENT_SECONDS", 0.2)
    monkeypatch.setattr("shared.ollama.server.PROBE_SECONDS", 0.5)
    with switched_proxy(remote.url) as proxy:
        server = OllamaServer(OllamaSettings(host=proxy.url, timeout_seconds=0.5))
        proxy.freeze()
        with pytest.raises(UnavailableError, match="did not answer in time") as raised:
            generate(server)
        assert raised.value.service == "Ollama"


@pytest.mark.parametrize("ask", [OllamaServer.models, OllamaServer.health, generate, chat, pull])
def test_a_server_that_does_not_run_is_named_with_what_to_do(
    ask: Callable[[OllamaServer], object],
) -> None:
    host = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=f"{host} .*ollama serve.*OLLAMA_HOST") as raised:
        ask(OllamaServer(OllamaSettings(host=host)))
    assert raised.value.specific_code == "ollama_unavailable"


@pytest.mark.parametrize(
    ("status", "words", "error", "code"),
    [
        (500, "llama runner process has terminated", UnavailableError, "ollama_unavailable"),
        (503, "server busy, please try again", UnavailableError, "ollama_unavailable"),
        (429, "too many requests", UnavailableError, "ollama_unavailable"),
        (400, "top_logprobs must be between 0 and 20", RequestError, "ollama_refused"),
        (401, "unauthorized", DeniedError, "ollama_unauthorized"),
        (404, "model 'echo:1b' not found", NotFoundError, "model_not_found"),
        (404, "404 page not found", RequestError, "ollama_refused"),
        (
            500,
            "model requires more system memory (5.6 GiB) than is available (3.1 GiB)",
            OutOfMemoryError,
            "out_of_memory",
        ),
        (500, "write blob: no space left on device", InsufficientDiskError, "insufficient_disk"),
        (
            500,
            "llama-server process has terminated: error loading model: out of memory",
            OutOfMemoryError,
            "out_of_memory",
        ),
        (
            500,
            "error loading model: tensor data is not within the file bounds",
            ModelLoadError,
            "corrupt_weights",
        ),
        (500, "unable to load model: /blobs/sha256-00", ModelLoadError, "corrupt_weights"),
        (
            500,
            "error loading model: unknown model architecture: 'newest'",
            ModelLoadError,
            "unsupported_architecture",
        ),
        (500, 'option "num_ctx" must be of type integer', InvalidInputError, "invalid_input"),
        (400, '"echo:1b" does not support thinking', InvalidInputError, "invalid_input"),
        (400, '"echo:1b" does not support chat', UnsupportedTaskError, "unsupported_task"),
        (400, 'time: invalid duration "soon"', InvalidInputError, "invalid_input"),
        (500, "invalid JSON schema in format", InvalidInputError, "invalid_input"),
        (500, "json: unsupported value: +Inf", InvalidInputError, "invalid_input"),
        (
            400,
            "pull model manifest: 412: the model requires a newer version of Ollama",
            RequestError,
            "ollama_refused",
        ),
        (
            400,
            "pull model manifest: 500: internal error",
            UnavailableError,
            "ollama_registry_unavailable",
        ),
    ],
)
@WORKS
def test_an_error_of_the_server_keeps_its_words(
    remote: OllamaTestServer,
    work: Work,
    path: str,
    status: int,
    words: str,
    error: type[LifecycleError],
    code: str,
) -> None:
    remote.faults[path] = Fault(FaultKind.ERROR, status=status, words=words)
    with pytest.raises(LifecycleError) as raised:
        work(OllamaServer(OllamaSettings(host=remote.url)), CancelToken())
    assert type(raised.value) is error
    assert raised.value.specific_code == code
    assert (MODEL if error is NotFoundError else words) in raised.value.detail


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FaultKind.ERROR, "fails: an error was encountered while running the model"),
        (FaultKind.CUT, "broke off"),
        (FaultKind.END, "broke off"),
        (FaultKind.GARBAGE, "not Ollama's"),
    ],
)
@pytest.mark.parametrize("after", [1, 2])
@WORKS
def test_a_stream_that_breaks_may_be_tried_again(
    remote: OllamaTestServer,
    server: OllamaServer,
    work: Work,
    path: str,
    kind: FaultKind,
    words: str,
    after: int,
) -> None:
    remote.faults[path] = Fault(kind, after=after)
    with pytest.raises(UnavailableError, match=words):
        work(server, CancelToken())


def test_what_came_before_a_break_was_handed_out(
    remote: OllamaTestServer, server: OllamaServer
) -> None:
    remote.faults[GENERATE] = Fault(FaultKind.CUT, after=2)
    sampling = OllamaSampling({"temperature": 0})
    with closing(server.generate(MODEL, "a b c", sampling, CancelToken())) as stream:
        assert [next(stream).text, next(stream).text] == ["a", " b"]
        with pytest.raises(UnavailableError):
            next(stream)


def test_a_call_to_a_server_that_hangs_ends(remote: OllamaTestServer) -> None:
    remote.faults[TAGS] = Fault(FaultKind.HANG)
    server = OllamaServer(OllamaSettings(host=remote.url, timeout_seconds=0.2))
    with pytest.raises(UnavailableError, match="did not answer in time"):
        server.models()


def test_an_answer_that_is_not_json_is_told(remote: OllamaTestServer, server: OllamaServer) -> None:
    remote.faults[TAGS] = Fault(FaultKind.GARBAGE)
    with pytest.raises(UnavailableError, match="not Ollama's"):
        server.models()


@pytest.mark.parametrize("after", [0, 1, 2])
@WORKS
def test_a_cancel_stops_work_that_waits_for_the_server(
    remote: OllamaTestServer, server: OllamaServer, work: Work, path: str, after: int
) -> None:
    remote.faults[path] = Fault(FaultKind.HANG, after=after)
    token = CancelToken()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(work, server, token)
        assert remote.hung.wait(PATIENCE_SECONDS)
        token.cancel(STOP)
        assert running.exception(PATIENCE_SECONDS) is STOP
    assert remote.left.wait(PATIENCE_SECONDS)


def test_a_cancel_between_pieces_takes_effect_at_the_next(server: OllamaServer) -> None:
    token = CancelToken()
    with closing(server.generate(MODEL, "a b c", OllamaSampling(), token)) as stream:
        next(stream)
        token.cancel(STOP)
        with pytest.raises(CancelledError):
            next(stream)


def test_a_cancelled_pull_goes_on_where_it_was(
    remote: OllamaTestServer, server: OllamaServer
) -> None:
    remote.models.clear()
    token = CancelToken()

    def stop_at_half(completed: int, total: int | None, message: str) -> None:
        if total and completed * 2 >= total:
            token.cancel(STOP)

    remote.faults[PULL] = Fault(FaultKind.HANG, after=4)
    with pytest.raises(CancelledError):
        server.pull(MODEL, token, stop_at_half)
    assert remote.left.wait(PATIENCE_SECONDS)
    assert not server.models()
    remote.faults.clear()
    reports: list[int] = []
    server.pull(MODEL, CancelToken(), lambda completed, *_: reports.append(completed))
    assert next(done for done in reports if done) >= 3500
    assert [model.name for model in server.models()] == [MODEL]


def test_nothing_is_left_running_behind_a_stream(
    remote: OllamaTestServer, server: OllamaServer
) -> None:
    generate(server)
    stream = server.generate(MODEL, "one two", OllamaSampling(), CancelToken())
    next(stream)
    assert "ollama-stream" in {thread.name for thread in threading.enumerate()}
    stream.close()
    assert "ollama-stream" not in {thread.name for thread in threading.enumerate()}
