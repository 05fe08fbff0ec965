"""Tasks beside text, and models of Ollama, through the public API."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from tests import media_samples
from tests.ollama_server import Fault, FaultKind, Model, OllamaTestServer
from tests.platform import Platform
from tests.tiny_audio_models import tiny_wav2vec2_classifier
from tests.tiny_vision_models import tiny_llava

Register = Callable[[str, str, Path], str]


@pytest.fixture(scope="session")
def register(platform: Platform, hub: HubProcess) -> Register:
    """Take a model all the way to production; returns its registered name."""

    def way(name: str, task: str, directory: Path) -> str:
        publish(hub.root, f"tests/{name}", directory)
        local = platform.done("/models/download", model_name=f"tests/{name}")["local_model_name"]
        upload = platform.done("/models/upload_to_lakefs", repo_name=name, local_model_name=local)
        platform.done(
            "/models/register_from_lakefs",
            registered_name=name,
            task=task,
            lakefs_repo=name,
            commit_id=upload["commit_id"],
            stage="production",
        )
        return name

    return way


@pytest.fixture(scope="session")
def ears(register: Register, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of sounds in production."""
    made = tiny_wav2vec2_classifier(tmp_path_factory.mktemp("made") / "ears")
    return register("ears", "audio-classification", made)


@pytest.fixture(scope="session")
def eyes(register: Register, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that sees in production."""
    return register("eyes", "vlm", tiny_llava(tmp_path_factory.mktemp("made") / "eyes"))


def uploaded(platform: Platform, content: bytes) -> str:
    """Upload a file and return its id."""
    answer = platform.http.post("/files", files={"file": ("input", content)})
    return str(answer.raise_for_status().json()["file_id"])


def ask(platform: Platform, task: str, model: str, **data: Any) -> Any:
    body = {"task": task, "model_name": model, "data": data, "options": {}}
    return platform.http.post("/inference/infer?wait=100", json=body)


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac"])
def test_uploaded_sound_is_classified(platform: Platform, ears: str, kind: str) -> None:
    file_id = uploaded(platform, media_samples.audio(kind))
    answer = ask(platform, "audio-classification", ears, audio=file_id)
    result = answer.raise_for_status().json()["result"]
    assert result["labels"]
    assert result["metadata"]["duration_seconds"] == pytest.approx(1, abs=0.1)


def test_uploaded_image_is_described(platform: Platform, eyes: str) -> None:
    file_id = uploaded(platform, media_samples.image("png"))
    result = ask(platform, "vlm", eyes, image=file_id, prompt="what is it?").json()["result"]
    assert result["generated_text"]


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        ("file:///etc/passwd", 422, "media_url_refused"),
        ("../../etc/passwd", 422, "media_path_refused"),
        ("http://127.0.0.1:9/image.png", 422, "media_url_refused"),
        ("http://169.254.169.254/latest/meta-data", 422, "media_url_refused"),
        ("data:image/png;base64,aGVsbG8=", 422, "media_type_unsupported"),
    ],
)
def test_reference_that_must_not_be_followed_is_refused(
    platform: Platform, eyes: str, image: str, status: int, code: str
) -> None:
    answer = ask(platform, "vlm", eyes, image=image, prompt="what is it?")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "data.image" in [line["field"] for line in answer.json()["errors"]]


def test_bad_media_is_told_and_the_worker_goes_on(platform: Platform, eyes: str) -> None:
    for content, code in (
        (media_samples.image_bomb(), "media_too_large"),
        (media_samples.image("png")[:60], "media_corrupt"),
        (media_samples.encrypted_pdf(), "media_type_unsupported"),
    ):
        file_id = uploaded(platform, content)
        answer = ask(platform, "vlm", eyes, image=file_id, prompt="what is it?")
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    file_id = uploaded(platform, media_samples.image("png"))
    assert ask(platform, "vlm", eyes, image=file_id, prompt="?").status_code == 200


def test_ollama_quickstart(platform: Platform, ollama: OllamaTestServer) -> None:
    """List, register with a stage, ask by the registered name: whole, streamed, cancelled."""
    local = platform.http.get("/models/local", params={"model_source": "ollama"}).json()
    assert [model["name"] for model in local] == ["echo:0.5b"]
    version = platform.done(
        "/models/register_ollama",
        local_model_name="echo:0.5b",
        task="text-generation-ollama",
        registered_name="echo",
        stage="production",
    )
    assert version["tags"]["ollama_model_name"] == "echo:0.5b"
    assert float(version["tags"]["model_params"]) > 0

    request: Any = {
        "task": "text-generation-ollama",
        "model_name": "echo",
        "data": {"inputs": "one two three"},
        "options": {"num_predict": 64, "temperature": 0},
    }
    whole = platform.http.post("/inference/infer?wait=60", json=request).json()
    assert whole["engine"] == "ollama"
    job_id = platform.submit("/inference/infer", **request, stream=True)["job_id"]
    pieces = [data["text"] for name, data in platform.events(job_id) if name == "token"]
    assert len(pieces) > 1
    assert "".join(pieces) == whole["result"]["generated_text"]

    ollama.faults["/api/generate"] = Fault(FaultKind.HANG, after=1)
    job_id = platform.submit("/inference/infer", **request, stream=True)["job_id"]
    platform.wait_for(job_id, "token")
    platform.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    platform.ended(job_id, state="cancelled")
    assert ollama.left.wait(10), "the server was told"
    ollama.faults.clear()


def test_thoughts_of_a_model_are_events_of_their_own(
    platform: Platform, ollama: OllamaTestServer
) -> None:
    ollama.have(Model("thinker:1b", capabilities=("completion", "thinking")))
    body: Any = {
        "local_model_name": "thinker:1b",
        "registered_name": "thinker",
        "stage": "production",
    }
    version = platform.done("/models/register_ollama", **body)
    assert version["tags"]["gguf_sha256"] == ollama.models["thinker:1b"].blob
    job_id = platform.submit(
        "/inference/infer",
        task="text-generation-ollama",
        model_name="thinker",
        data={"inputs": "one two"},
        options={"temperature": 0},
        stream=True,
    )["job_id"]
    told = [(name, data["text"]) for name, data in platform.events(job_id) if "text" in data]
    # The first text comes alone; those that follow it quickly come together.
    assert told[0] == ("thinking", "Let")
    assert [name for name, _ in told] == sorted(name for name, _ in told)
    assert {
        of: "".join(text for name, text in told if name == of) for of in ("thinking", "token")
    } == {"thinking": "Let me see.", "token": "one two"}
    del ollama.models["thinker:1b"]


def test_what_ollama_would_fail_at_is_refused_at_once(platform: Platform) -> None:
    request: Any = {
        "task": "text-generation",
        "engine": "ollama",
        "model_name": "echo",
        "data": {"inputs": "a"},
    }
    for options in ({"repeat_penalty": 0}, {"num_thread": 10_000}, {"num_predict": 0}):
        answer = platform.http.post("/inference/infer", json=request | {"options": options})
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["field"]) == (422, f"options.{next(iter(options))}")
    contradiction = request | {"task": "text-generation-ollama", "engine": "transformers"}
    answer = platform.http.post("/inference/infer", json=contradiction)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "engine")


def test_ollama_that_is_away_is_told_with_what_to_do(platform: Platform) -> None:
    answer = platform.http.post(
        "/models/register_ollama?wait=60", json={"local_model_name": "nobody:7b"}
    )
    assert answer.status_code == 404
    assert "nobody:7b" in answer.json()["detail"]
