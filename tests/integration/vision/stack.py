"""A manager of models that see, and transformers itself beside it."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shared.settings import MIB, InferenceSettings, MediaSettings, Settings, StorageSettings
from tests.media_samples import mp4
from tests.model_stores import DirectoryStore, StaticRegistry
from tests.tiny_vision_models import t
from workers.inference.engines.transformers_engine import TransformersEngine
from workers.inference.manager import build_manager

TOKENS = 12


class VisionStack:
    """Publishes models and asks them."""

    def __init__(self, root: Path) -> None:
        self.store = DirectoryStore(root / "store")
        self.registry = StaticRegistry()
        self.settings = Settings(
            inference=InferenceSettings(
                device="cpu", cache_max_bytes=64 * MIB, cache_max_models=20, max_new_tokens=TOKENS
            ),
            storage=StorageSettings(
                snapshots_dir=root / "snapshots", snapshots_max_bytes=0, reserve_bytes=0
            ),
            media=MediaSettings(max_video_frames=10),
        )
        self.manager = build_manager(self.settings, self.registry, self.store)

    def publish(self, name: str, make: Callable[..., Path], **options: Any) -> Path:
        """Put a tiny model into the store and the registry; return its files."""
        location = self.store.location(name.encode().hex())
        directory = make(self.store.directory(location), **options)
        self.registry.add(name, location)
        return directory

    def direct(self, name: str, model_class: str) -> tuple[Any, Any]:
        """Load a model and its processor without the platform."""
        directory = self.store.directory(self.store.location(name.encode().hex()))
        model = getattr(t, model_class).from_pretrained(directory, use_safetensors=True)
        return model, t.AutoProcessor.from_pretrained(directory, local_files_only=True)

    def ask(self, task: str, model: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Ask with options given by name."""
        keywords = {key: more.pop(key) for key in ("token", "on_token") if key in more}
        return self.manager.infer(task, "transformers", model, data, more, **keywords)


def spy_on_generate(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return a list that each ``generate`` of the engine adds its token ids to."""
    seen: list[list[int]] = []
    generate = TransformersEngine._generate

    def spy(self: TransformersEngine, model: Any, inputs: Any) -> Any:
        output = generate(self, model, inputs)
        seen.append(output[0].tolist())
        return output

    monkeypatch.setattr(TransformersEngine, "_generate", spy)
    return seen


def generate(model: Any, encoded: Any, **options: Any) -> list[int]:
    """Call transformers directly; return the tokens of prompt and answer."""
    torch.manual_seed(options.pop("seed", 0))
    ids: list[int] = model.generate(**encoded, **{"max_new_tokens": TOKENS} | options)[0].tolist()
    return ids


def chat(processor: Any, parts: list[dict[str, Any]], prompt: str, **arguments: Any) -> Any:
    """Encode media and a prompt as the model's documentation does."""
    return processor.apply_chat_template(
        [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=arguments,
    )


def noise(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return an image that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def uri(medium: Image.Image | bytes, media_type: str = "image/png") -> str:
    """Return a medium as requests carry it."""
    if isinstance(medium, Image.Image):
        file = io.BytesIO()
        medium.save(file, "PNG")
        medium = file.getvalue()
    return f"data:{media_type};base64,{base64.b64encode(medium).decode()}"


def video(seed: int, frames: int = 30) -> bytes:
    """Return a video whose frames all have other colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (frames, 3)).tolist()
    return mp4([tuple(colour) for colour in colours])


def pdf(*pages: Image.Image) -> bytes:
    """Return a document of these pages."""
    file = io.BytesIO()
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:], resolution=72)
    return file.getvalue()


def asked(
    generated: list[list[int]],
    result: dict[str, Any],
    processor: Any,
    answer: str = "generated_text",
) -> list[int]:
    """Return the tokens that the model generated, whose answer's text is the result's."""
    ids = generated.pop()
    metadata = result["metadata"]
    text = processor.tokenizer.decode(ids[metadata["input_tokens"] :], skip_special_tokens=True)
    assert result[answer] == text
    assert metadata["output_tokens"] == len(ids) - metadata["input_tokens"]
    assert metadata["finish_reason"] == "length"
    return ids
