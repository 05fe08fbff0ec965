"""The stack that readers have: what ``lifecycle demo --keep`` leaves, on free ports.

The hub has, under the names that the documents use, the demonstration's model and tiny ones that
see, hear and read.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from shared.settings import LakeFSSettings
from tests.docs.pages import ROOT
from tests.ollama_server import Model, OllamaTestServer, ollama_server
from tests.platform import Platform
from tests.tiny_audio_models import tiny_wav2vec2_classifier, tiny_whisper
from tests.tiny_page_models import tiny_donut, tiny_trocr
from tests.tiny_vision_models import tiny_qwen2_vl

DEMO_MODEL = "demo/tiny-chat"
#: Models that chat.
CHAT_MODELS = (DEMO_MODEL, "HuggingFaceTB/SmolLM2-135M-Instruct")
MODELS: dict[str, Callable[[Path], Path]] = {
    "Qwen/Qwen2-VL-2B-Instruct": tiny_qwen2_vl,
    "openai/whisper-tiny": tiny_whisper,
    "microsoft/trocr-base-printed": tiny_trocr,
    "naver-clova-ix/donut-base-finetuned-docvqa": tiny_donut,
    "superb/wav2vec2-base-superb-ks": tiny_wav2vec2_classifier,
}
OLLAMA_MODEL = "llama3.2:1b"


@dataclass(frozen=True)
class Stack:
    """What the commands of the documents talk to."""

    platform: Platform
    ollama: OllamaTestServer
    scratch: Path


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, lakefs_server: LakeFSSettings
) -> Iterator[Stack]:
    """Front, workers, Redis, hub and Ollama, and the demonstration's model in production."""
    root, scratch = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("docs")
    _publish(root, tmp_path_factory.mktemp("made"))
    with ollama_server() as ollama, HubProcess(root) as hub:
        ollama.library[OLLAMA_MODEL] = Model(OLLAMA_MODEL)
        directory = tmp_path_factory.mktemp("platform")
        url = {"OLLAMA_HOST": ollama.url}
        with Platform(directory, mlflow_server, lakefs_server, hub, **url) as platform:
            platform.done(
                "/models/import",
                model_name=DEMO_MODEL,
                registered_name="tiny-chat",
                task="text-generation",
                stage="production",
            )
            yield Stack(platform, ollama, scratch)


def _publish(root: Path, made: Path) -> None:
    chat = made / "chat"
    train = [sys.executable, "-m", "embedded.demo_model", str(chat)]
    subprocess.run(train, cwd=ROOT, check=True, capture_output=True)
    for name in CHAT_MODELS:
        publish(root, name, chat)
    for name, make in MODELS.items():
        publish(root, name, make(made / name.replace("/", "_")))
