"""The platform's processes on the session's stores."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from shared.settings import LakeFSSettings
from tests.interceptor import Interceptor, intercepting
from tests.ollama_server import Model, OllamaTestServer, ollama_server
from tests.platform import Platform
from tests.tiny_models import tiny_llama

#: Long enough for a generation that can be killed in its middle.
CONTEXT_TOKENS = 16_384
CHAT_MODEL = "tests/chat"
LARGE_MODEL = "tests/large"
LARGE_BYTES = 200 * 1024 * 1024


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub with a small chat model and a model of 200 MB."""
    root, made = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("made")
    publish(root, CHAT_MODEL, tiny_llama(made / "chat", context_tokens=CONTEXT_TOKENS))
    publish(root, LARGE_MODEL, _large(made / "large"))
    with HubProcess(root) as hub:
        yield hub


def _large(directory: Path) -> Path:
    """Write a model whose weights are noise: it is moved, never loaded."""
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    noise = os.urandom(1024 * 1024)
    with (directory / "model.safetensors").open("wb") as file:
        for number in range(LARGE_BYTES // len(noise)):
            file.write(number.to_bytes(8) + noise[8:])
    return directory


@pytest.fixture(scope="session")
def ollama() -> Iterator[OllamaTestServer]:
    """An Ollama with a model that says back what it hears."""
    with ollama_server(Model("echo:0.5b")) as server:
        yield server


@pytest.fixture(scope="session")
def lakefs_proxy(lakefs_server: LakeFSSettings) -> Iterator[Interceptor]:
    """The session's lakeFS behind a proxy that can hold an answer."""
    with intercepting(lakefs_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def mlflow_proxy(mlflow_server: str) -> Iterator[Interceptor]:
    """The session's MLflow behind a proxy that can hold an answer."""
    with intercepting(mlflow_server) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_proxy: Interceptor,
    lakefs_server: LakeFSSettings,
    lakefs_proxy: Interceptor,
    hub: HubProcess,
    ollama: OllamaTestServer,
) -> Iterator[Platform]:
    """Front, workers and Redis, for the tests to kill; each test leaves them running."""
    lakefs = lakefs_server.model_copy(update={"endpoint": lakefs_proxy.url})
    directory = tmp_path_factory.mktemp("platform")
    with Platform(directory, mlflow_proxy.url, lakefs, hub, OLLAMA_HOST=ollama.url) as platform:
        yield platform


@pytest.fixture(scope="session")
def chat_model(platform: Platform) -> str:
    """The chat model in production; returns its registered name."""
    local = platform.done("/models/download", model_name=CHAT_MODEL)["local_model_name"]
    upload = platform.done("/models/upload_to_lakefs", repo_name="chat", local_model_name=local)
    platform.done(
        "/models/register_from_lakefs",
        registered_name="chat",
        task="text-generation",
        lakefs_repo="chat",
        commit_id=upload["commit_id"],
        path=upload["path"],
        stage="production",
    )
    return "chat"
