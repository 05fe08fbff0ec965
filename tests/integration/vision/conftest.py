"""One manager with every model that sees."""

from collections.abc import Iterator

import pytest
import torch

from tests.integration.vision.stack import VisionStack, spy_on_generate
from tests.tiny_models import tiny_llama
from tests.tiny_page_models import (
    RECEIPT_TOKENS,
    tiny_donut,
    tiny_layoutlm,
    tiny_layoutlmv3,
    tiny_trocr,
)
from tests.tiny_vision_models import (
    tiny_gemma3,
    tiny_got_ocr,
    tiny_llava,
    tiny_llava_next_video,
    tiny_qwen2_vl,
    tiny_smolvlm,
)

MODELS = {
    "llava": tiny_llava,
    "smolvlm": tiny_smolvlm,
    "qwen2-vl": tiny_qwen2_vl,
    "llava-next-video": tiny_llava_next_video,
    "got-ocr": tiny_got_ocr,
    "gemma3": tiny_gemma3,
    "trocr": tiny_trocr,
    "donut": tiny_donut,
    "layoutlm": tiny_layoutlm,
    "layoutlmv3": tiny_layoutlmv3,
    "llama": tiny_llama,
}


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Have torch work on one thread: on models this small, many only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VisionStack]:
    """The manager."""
    stack = VisionStack(tmp_path_factory.mktemp("vision"))
    for name, make in MODELS.items():
        stack.publish(name, make)
    stack.publish("llava-plain", tiny_llava, chat_template=None)
    stack.publish("receipts", tiny_donut, tokens=RECEIPT_TOKENS)
    yield stack
    stack.manager.close()


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The tokens that the engine generates, prompts included; the latest come last."""
    return spy_on_generate(monkeypatch)
