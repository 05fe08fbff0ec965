"""Models run by transformers: from safetensors only, and never with code of their own."""

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils.logging import disable_progress_bar

from shared.cancellation import CancelToken
from shared.errors import InvalidInputError, OutOfMemoryError
from shared.settings import Settings
from shared.tasks import Task
from workers.inference.architectures import family_of, read_config, tasks_of
from workers.inference.calls import InferenceCall
from workers.inference.devices import choose_device, free_bytes
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.engines.transformers_loading import check_files, dtype_of, float_bytes, load
from workers.inference.memory import set_memory_aside
from workers.inference.weights import tensors

#: torch's random numbers belong to the process, so only one generation at a time may draw them.
_RANDOM = threading.Lock()
_POLL_SECONDS = 0.05
#: Inputs that are seconds, not pixels or sound: the model calculates with them as they are.
_EXACT = {"second_per_grid_ts"}
#: The token of the call that this thread works on: several share a model.
_TOKEN: ContextVar[CancelToken | None] = ContextVar("cancel_token", default=None)


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
    #: What ``generate`` takes beside these for some architectures.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: Whether this ``generate`` changes the model's configuration, which other requests share.
    changes_model: bool = False


@dataclass(frozen=True)
class Generations:
    """Calls of ``model.generate``, one after another."""

    each: tuple[Generation, ...]


@dataclass(frozen=True)
class Forward:
    """Calls of the model itself, one after another, each of which can be the last."""

    batches: Iterable[Mapping[str, torch.Tensor]]
    #: Takes what is needed from each output, so that the rest is not kept.
    keep: Callable[[Any], Any]


class TransformersEngine(BaseEngine[TransformersModel]):
    """Runs the architectures that transformers itself knows."""

    name: ClassVar[str] = "transformers"
    supported_tasks: ClassVar[frozenset[Task]] = frozenset(Task)

    def __init__(self, settings: Settings) -> None:
        """Choose the type of the weights; where each goes is said with it."""
        super().__init__(settings)
        disable_progress_bar()  # type: ignore[no-untyped-call] # a worker's log is no terminal
        set_memory_aside()
        self._dtype = dtype_of(settings.inference.dtype)
        inference = settings.inference
        self._device = choose_device(inference.device, cpu_fallback=inference.cpu_fallback)

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
        with _memory_errors():
            model, processor = load(directory, family_of(config), self._dtype, source.device)
        _make_interruptible(model)
        return TransformersModel(
            architecture=type(model).__name__,
            tasks=tasks_of(config),
            size_bytes=int(model.get_memory_footprint()),
            device=str(model.device),
            model=model,
            processor=processor,
        )

    def infer(self, model: TransformersModel, inputs: Any, call: InferenceCall) -> Any:
        """Run a ``Generation``, several, or a ``Forward``.

        Return what ``generate`` returns, a list of that, or of what the ``Forward`` keeps.
        """
        with _interruptible(call.token):
            match inputs:
                case Generation():
                    return self._generation(model, inputs, call)
                case Generations(each):
                    return [self._generation(model, one, call) for one in each]
                case Forward():
                    return list(self._forward(model, inputs, call))
        raise TypeError(f"the transformers engine does not run {type(inputs).__name__}")

    def unload_model(self, model: TransformersModel) -> None:
        """Free the weights, also on the GPU."""
        on_gpu = model.model.device.type == "cuda"
        del model.model, model.processor
        if on_gpu:
            torch.cuda.empty_cache()

    def health(self) -> dict[str, Any]:
        """Return the worker's device, and the memory that is free there."""
        free = free_bytes(self._device)
        return {"device": self._device, "free_bytes": free, "torch": torch.__version__}

    def _generation(self, model: TransformersModel, inputs: Generation, call: InferenceCall) -> Any:
        """Generate; where random numbers are drawn, while nobody else draws them."""
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

    def _forward(
        self, model: TransformersModel, inputs: Forward, call: InferenceCall
    ) -> Iterator[Any]:
        for batch in inputs.batches:
            call.token.check()
            with _memory_errors(), torch.inference_mode():
                kept = inputs.keep(model.model(**_moved(batch, model.model)))
            yield kept

    def _generate(self, model: TransformersModel, inputs: Generation) -> Any:
        runner = _apart(model.model) if inputs.changes_model else model.model
        try:
            with _memory_errors():
                return runner.generate(
                    **_moved(inputs.inputs, model.model),
                    generation_config=inputs.config,
                    stopping_criteria=inputs.stopping,
                    streamer=inputs.streamer,
                    **inputs.arguments,
                )
        except ValueError as error:  # how transformers refuses options that do not go together
            raise InvalidInputError(f"the options do not work: {error}", field="options") from None


def _moved(inputs: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Return the inputs on the model's device, and what it looks at or hears in its type."""
    return {
        name: tensor.to(
            model.device,
            model.dtype if tensor.is_floating_point() and name not in _EXACT else tensor.dtype,
        )
        for name, tensor in inputs.items()
    }


def _apart(model: Any) -> Any:
    """Return the same weights with a configuration of their own."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


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


def _make_interruptible(model: nn.Module) -> None:
    """Have every layer look at the token before it runs: a long prompt is one step of generation.

    What cannot be interrupted is then one layer's work, not one step's.
    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for layer in module:
                layer.register_forward_pre_hook(_look)


@contextmanager
def _interruptible(token: CancelToken) -> Iterator[None]:
    """Let a token interrupt the models that this thread runs in the block."""
    before = _TOKEN.set(token)
    try:
        yield
    finally:
        _TOKEN.reset(before)


def _look(_module: nn.Module, _inputs: Any) -> None:
    token = _TOKEN.get()
    if token is not None:
        token.check()
