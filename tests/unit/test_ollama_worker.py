"""An Ollama worker needs no torch, and sends as many requests at once as Ollama can take."""

import subprocess
import sys

import pytest

from shared.settings import OllamaSettings

#: As where torch and what comes with it are not installed.
WITHOUT_TORCH = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers", "numpy", "PIL", "safetensors"))

from pathlib import Path
from shared.settings import Settings
from tests.model_stores import DirectoryStore, StaticRegistry
from workers.inference import works
from workers.inference.manager import build_manager

store = DirectoryStore(Path("nowhere"))
manager = build_manager(Settings(), StaticRegistry(), store, remote_engine="ollama")
manager.import_engine("ollama")
stats = manager.get_stats()
print(stats["handlers"], stats["devices"], stats["models"])
"""


def test_it_needs_no_torch() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "['text-generation:ollama'] [] []\n"


@pytest.mark.parametrize(
    ("concurrency", "num_parallel", "slots"),
    [(0, 0, 10), (0, 1, 2), (0, 4, 5), (0, 8, 10), (0, 16, 20), (3, 8, 3)],
)
def test_its_slots_follow_what_ollama_serves_at_once(
    concurrency: int, num_parallel: int, slots: int
) -> None:
    settings = OllamaSettings(concurrency=concurrency, num_parallel=num_parallel)
    assert settings.slots == slots
