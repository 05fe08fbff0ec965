"""The contract of an engine: how a model is judged, loaded, run and unloaded."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from shared.cancellation import CancelToken
from shared.models import ModelVersion
from shared.settings import Settings
from workers.inference.calls import InferenceCall


@dataclass(frozen=True)
class ModelSource:
    """Where an engine finds a model, and what it is wanted for."""

    version: ModelVersion
    task: str
    #: The snapshot; None for engines that keep their models themselves.
    directory: Path | None
    #: Where the model is to go, as torch calls it; chosen by its estimated size.
    device: str = "cpu"


@dataclass
class LoadedModel:
    """A model in memory; engines add what they need to run it."""

    #: The class that the model's configuration names, by which handlers may be specialised.
    architecture: str | None
    #: What the model can be asked for.
    tasks: frozenset[str]
    #: Measured after the load.
    size_bytes: int
    device: str
    #: How many jobs it runs at once, as one batch.
    places: int = field(default=1, kw_only=True)


@dataclass(frozen=True)
class Whereabouts:
    """Where the server of a remote engine has a model now."""

    in_memory: bool
    size_bytes: int = 0
    #: ``cpu``, ``gpu`` or ``cpu+gpu``; empty if the model is not in memory.
    device: str = ""


ModelT = TypeVar("ModelT", bound=LoadedModel)


class BaseEngine(ABC, Generic[ModelT]):
    """Runs models of one kind. One instance serves all threads of a process."""

    #: The word that requests and versions name it by.
    name: ClassVar[str]
    supported_tasks: ClassVar[frozenset[str]]
    #: Whether another server holds the models: they take no memory of this process.
    is_remote: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        """Keep the settings; connect to nothing yet."""
        self.settings = settings

    def check_model(self, source: ModelSource) -> None:
        """Raise if the model is unsafe, incomplete or unfit for the task; before it is loaded."""

    @abstractmethod
    def estimate_bytes(self, source: ModelSource) -> int:
        """Return what the model will take in memory, without loading it."""

    @abstractmethod
    def load_model(self, source: ModelSource) -> ModelT:
        """Load the model; leave nothing behind on an error."""

    @abstractmethod
    def infer(self, model: ModelT, inputs: Any, call: InferenceCall) -> Any:
        """Run the model on what the handler prepared; handler and engine agree on both types.

        Looks at ``call.token`` as often as it can, and raises ``OutOfMemoryError`` when it is.
        """

    @abstractmethod
    def unload_model(self, model: ModelT) -> None:
        """Free all that the model takes, even if somebody still holds ``model``."""

    def warm(self, model: ModelT, call: InferenceCall) -> None:
        """Have the server of a remote engine load the model before anybody asks it."""

    def whereabouts(self, model: ModelT, token: CancelToken | None = None) -> Whereabouts | None:  # noqa: ARG002 - for those that override it
        """Return where the server of a remote engine has the model now; None if it does not say.

        With a token it is a request that asks, which waits; a report must not wait long.
        """
        return None

    def health(self) -> dict[str, Any]:
        """Say what the engine runs on; raise ``UnavailableError`` if it cannot run now."""
        return {}
