"""Text generation on Ollama, from a request's data and options to its result."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import CancelledError, InvalidInputError, ModelLoadError, NotFoundError
from shared.settings import Settings
from shared.tasks import Task
from tests.asked_ollama import MODEL, asked
from tests.ollama_server import Fault, FaultKind, Model, OllamaTestServer, ollama_server
from workers.inference.calls import InferenceCall
from workers.inference.handlers.ollama_text import OllamaTextHandler

PATIENCE_SECONDS = 60


@pytest.fixture
def remote() -> Iterator[OllamaTestServer]:
    with ollama_server(Model(MODEL)) as server:
        server.library[MODEL] = Model(MODEL)
        yield server


def test_a_text_is_answered_with_what_the_answer_took(remote: OllamaTestServer) -> None:
    result = asked(remote).infer("one two three", temperature=0, seed=3)
    assert result == {
        "generated_text": "one two three",
        "metadata": {
            "input_tokens": 3,
            "output_tokens": 3,
            "finish_reason": "stop",
            "seed": 3,
            "ollama_model_name": MODEL,
            "ollama_digest": Model(MODEL).digest,
            "gguf_sha256": Model(MODEL).blob,
            "context_length": 4096,
            "ollama_load_seconds": 4.0,
            "prompt_seconds": 1.0,
            "generation_seconds": 2.0,
        },
    }


def test_messages_are_answered_as_a_chat(remote: OllamaTestServer) -> None:
    messages = [{"role": "system", "content": "Echo."}, {"role": "user", "content": "one"}]
    result = asked(remote).infer(messages, temperature=0)
    assert result["generated_text"] == "system: Echo. user: one"
    assert remote.bodies("/api/chat")[0]["messages"] == messages


def test_the_pieces_that_are_streamed_are_the_text(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    assert ask.infer("a b c d e f g h", seed=3)["generated_text"] == "".join(ask.heard)
    assert len(ask.heard) == 5


def test_common_options_arrive_under_ollamas_names(remote: OllamaTestServer) -> None:
    asked(remote).infer(
        "a b",
        max_new_tokens=9,
        repetition_penalty=1.5,
        stop="x",
        seed=3,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        do_sample=True,
    )
    assert remote.bodies("/api/generate")[0]["options"] == {
        "num_predict": 9,
        "repeat_penalty": 1.5,
        "stop": ["x"],
        "seed": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
    }


def test_ollamas_own_options_arrive_as_they_are(remote: OllamaTestServer) -> None:
    own = {
        "seed": 7,
        "num_predict": -1,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "num_ctx": 512,
        "min_p": 0.1,
    }
    asked(remote).infer("a b", **own)
    assert remote.bodies("/api/generate")[0]["options"] == own


def test_options_change_the_answer(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    words = "a b c d e"
    assert ask.infer(words, seed=1)["generated_text"] != ask.infer(words, seed=2)["generated_text"]
    assert ask.infer(words, seed=1)["generated_text"] == ask.infer(words, seed=1)["generated_text"]
    assert ask.infer(words, do_sample=False, temperature=0.9)["generated_text"] == words
    assert ask.infer("a a b", do_sample=False, repeat_penalty=1.1)["generated_text"] == "a b"
    cut = ask.infer(words, do_sample=False, stop=("c",))
    assert (cut["generated_text"], cut["metadata"]["finish_reason"]) == ("a b", "stop")
    cut = ask.infer(words, do_sample=False, num_predict=2)
    assert (cut["generated_text"], cut["metadata"]["finish_reason"]) == ("a b", "length")


def test_an_answer_is_bounded_where_the_request_does_not_say(remote: OllamaTestServer) -> None:
    assert asked(remote).infer("a b c d e f g")["metadata"]["output_tokens"] == 5


@pytest.mark.parametrize(
    ("capabilities", "options", "tokens"),
    [
        (("completion", "thinking"), {}, 8),
        (("completion", "thinking"), {"think": True}, 8),
        (("completion", "thinking"), {"think": False}, 5),
        (("completion", "thinking"), {"max_new_tokens": 2}, 2),
        (("completion",), {}, 5),
    ],
)
def test_a_model_that_thinks_has_room_for_it(
    remote: OllamaTestServer,
    capabilities: tuple[str, ...],
    options: dict[str, object],
    tokens: int,
) -> None:
    remote.have(Model(MODEL, capabilities=capabilities))
    asked(remote).infer("a b", **options)
    assert remote.bodies("/api/generate")[0]["options"]["num_predict"] == tokens


def test_what_stands_beside_the_options_is_passed_on(remote: OllamaTestServer) -> None:
    remote.have(Model(MODEL, capabilities=("completion", "thinking")))
    ask = asked(remote, keep_alive="10m")
    thought = ask.infer("a", think=True, format="json")
    (first,) = remote.bodies("/api/generate")
    assert (first["keep_alive"], first["think"], first["format"]) == ("10m", True, "json")
    assert thought["generated_text"] == "a"
    assert thought["metadata"]["thinking"] == "Let me see."
    assert (ask.thoughts, ask.heard) == (["Let", " me", " see."], ["a"])


@pytest.mark.parametrize(
    "inputs",
    [
        "",
        [],
        None,
        7,
        ["one"],
        [{"role": "user"}],
        [{"role": "robot", "content": "x"}],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": "x", "images": ["/etc/hostname"]}],
    ],
)
def test_inputs_that_are_not_a_prompt_are_refused(inputs: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        OllamaTextHandler(Settings()).validate_input({"inputs": inputs})
    assert (refused.value.field or "").startswith("data.inputs")


def test_data_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        OllamaTextHandler(Settings()).validate_input({"inputs": "a", "prompt": "b"})
    assert refused.value.field == "data.prompt"


@pytest.mark.parametrize("option", [{"num_beams": 2}, {"wings": 2}, {"stop": [""]}])
def test_an_option_that_cannot_be_is_named(
    remote: OllamaTestServer, option: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        asked(remote).infer("a", **option)
    assert refused.value.field == f"options.{next(iter(option))}"


def test_a_version_that_is_not_ollamas_is_refused(remote: OllamaTestServer) -> None:
    with pytest.raises(ModelLoadError, match="ollama_model_name"):
        asked(remote).load(model_source="huggingface")


def test_a_model_that_the_server_lacks_is_not_loaded(remote: OllamaTestServer) -> None:
    remote.models.clear()
    with pytest.raises(NotFoundError, match="no model 'echo:1b'"):
        asked(remote).infer("a")


def test_a_model_that_the_server_lost_is_missed(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    model = ask.load()
    remote.models.clear()
    call = InferenceCall(
        Task.TEXT_GENERATION, {"inputs": "a"}, ask.route.handler.parse_options({}), ask.token
    )
    with pytest.raises(NotFoundError, match="no model 'echo:1b'"):
        ask.route.engine.infer(model, ask.route.handler.preprocess(model, call), call)


def test_it_is_pulled_where_the_settings_say_so(remote: OllamaTestServer) -> None:
    remote.models.clear()
    ask = asked(remote, auto_pull=True)
    assert ask.infer("a")["generated_text"] == "a"
    assert ask.progress[-1] == (7320, 7320, "bytes", "success")


def test_a_cancel_stops_the_wait_for_the_first_word(remote: OllamaTestServer) -> None:
    remote.faults["/api/generate"] = Fault(FaultKind.HANG)
    ask = asked(remote)
    stop = CancelledError("by the test")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(ask.infer, "a b c")
        assert remote.hung.wait(PATIENCE_SECONDS)
        ask.token.cancel(stop)
        assert running.exception(PATIENCE_SECONDS) is stop
    assert remote.left.wait(PATIENCE_SECONDS)


def test_an_unload_frees_the_servers_memory(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    ask.infer("a")
    assert remote.loaded == [MODEL]
    ask.route.engine.unload_model(ask.load())
    assert not remote.loaded


def test_an_unload_is_no_matter_where_the_server_is_gone(remote: OllamaTestServer) -> None:
    ask = asked(remote)
    model = ask.load()
    remote.models.clear()
    ask.route.engine.unload_model(model)
