"""Models run by transformers: from safetensors only, and never with code of their own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils.logging import disable_progress_bar

from shared.errors import InvalidInputError, OutOfMemoryError
from shared.settings import Settings
from shared.tasks import Task
from workers.inference.architectures import TASKS, family_of, read_config
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.engines.devices import choose_device
from workers.inference.engines.transformers_loading import check_files, dtype_of, float_bytes, load
from workers.inference.weights import tensors

#: torch's random numbers belong to the process, so only one generation at a time may draw them.
_RANDOM = threading.Lock()
_POLL_SECONDS = 0.05


@dataclass
class TransformersModel(LoadedModel):
    """A model and its tokenizer or processor; both attributes are gone after the unload."""

    model: Any
    processor: Any


@dataclass(frozen=True)
class Generation:
    """One call of ``model.generate``."""

    inputs: dict[str, torch.Tensor]
    config: GenerationConfig
    #: Seeds the random numbers; None where none are drawn.
    seed: int | None
    stopping: StoppingCriteriaList = field(default_factory=StoppingCriteriaList)
    streamer: BaseStreamer | None = None


class TransformersEngine(BaseEngine[TransformersModel]):
    """Runs the architectures that transformers itself knows, on one device."""

    name: ClassVar[str] = "transformers"
    supported_tasks: ClassVar[frozenset[Task]] = frozenset({Task.TEXT_GENERATION})

    def __init__(self, settings: Settings) -> None:
        """Choose the device and the type of the weights."""
        super().__init__(settings)
        disable_progress_bar()  # type: ignore[no-untyped-call] # a worker's log is no terminal
        self._dtype = dtype_of(settings.inference.dtype)
        self._device = choose_device(settings.inference.device)

    def check_model(self, source: ModelSource) -> None:
        """Refuse pickle weights, remote code, files that are missing or cut, and the wrong task."""
        check_files(_directory(source), source.task)

    def estimate_bytes(self, source: ModelSource) -> int:
        """Return the sum over the headers of the weights."""
        directory = _directory(source)
        held = float_bytes(self._dtype, read_config(directory))
        return sum(tensor.size_bytes(held) for tensor in tensors(directory))

    def load_model(self, source: ModelSource) -> TransformersModel:
        """Load weights and tokenizer to the device."""
        directory = _directory(source)
        config = read_config(directory)
        family = family_of(config)
        with _memory_errors():
            model, processor = load(directory, family, self._dtype, self._device)
        return TransformersModel(
            architecture=type(model).__name__,
            tasks=TASKS[family] if family else frozenset(),
            size_bytes=int(model.get_memory_footprint()),
            device=str(model.device),
            model=model,
            processor=processor,
        )

    def infer(self, model: TransformersModel, inputs: Any, call: InferenceCall) -> Any:
        """Run a ``Generation`` and return the token ids of prompt and answer."""
        if not isinstance(inputs, Generation):
            raise TypeError(f"the transformers engine does not run {type(inputs).__name__}")
        if inputs.seed is None:
            return self._generate(model, inputs)
        while not _RANDOM.acquire(timeout=_POLL_SECONDS):
            call.token.check()
        try:
            devices = [model.model.device] if model.model.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                torch.manual_seed(inputs.seed)
                return self._generate(model, inputs)
        finally:
            _RANDOM.release()

    def unload_model(self, model: TransformersModel) -> None:
        """Free the weights, also on the GPU."""
        on_gpu = model.model.device.type == "cuda"
        del model.model, model.processor
        if on_gpu:
            torch.cuda.empty_cache()

    def health(self) -> dict[str, Any]:
        """Return the device and its memory."""
        health: dict[str, Any] = {"device": self._device, "torch": torch.__version__}
        if self._device.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(self._device)
            health |= {"free_bytes": free, "total_bytes": total}
        return health

    def _generate(self, model: TransformersModel, inputs: Generation) -> Any:
        tensors_there = {name: x.to(model.model.device) for name, x in inputs.inputs.items()}
        try:
            with _memory_errors():
                return model.model.generate(
                    **tensors_there,
                    generation_config=inputs.config,
                    stopping_criteria=inputs.stopping,
                    streamer=inputs.streamer,
                )
        except ValueError as error:  # how transformers refuses options that do not go together
            raise InvalidInputError(f"the options do not work: {error}", field="options") from None


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn every way in which torch runs out of memory into ours.

    ``from None`` lets go of the traceback, whose frames hold the tensors that filled the memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(f"out of memory: {error}") from None
    except RuntimeError as error:  # the CPU's allocator has no class of its own
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise OutOfMemoryError(f"out of memory: {error}") from None


def _directory(source: ModelSource) -> Path:
    """Return the snapshot, which every model of this engine has."""
    if source.directory is None:
        raise InvalidInputError(
            f"version {source.version.version} of {source.version.name} has no files in lakeFS",
            field="model_name",
        )
    return source.directory
