"""What the server has and was asked, and what it is to do wrong."""

import hashlib
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]
CREATED = "2025-05-10T08:06:48.639712648-07:00"


class FaultKind(StrEnum):
    """What goes wrong."""

    #: Nothing comes any more, and the connection stays.
    HANG = "hang"
    #: The connection ends without the end of the answer.
    CUT = "cut"
    #: An error: a status and a body before the stream, an object in it later.
    ERROR = "error"
    #: A line that is not JSON.
    GARBAGE = "garbage"
    #: The stream ends well, and too early.
    END = "end"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong after so many messages of an answer; 0 is before its headers."""

    kind: FaultKind
    after: int = 0
    status: int = 500
    words: str = "an error was encountered while running the model"


@dataclass(frozen=True)
class Model:
    """A model that the server has or can pull."""

    name: str
    layers: tuple[int, ...] = (7000, 300, 20)
    parameter_size: str = "1.2B"
    parameter_count: int | None = 1_235_814_400
    capabilities: tuple[str, ...] = ("completion",)

    @property
    def digests(self) -> list[str]:
        return [sha(f"{self.name}/{number}") for number in range(len(self.layers))]

    @property
    def listed(self) -> Json:
        return {
            "name": self.name,
            "model": self.name,
            "modified_at": CREATED,
            "size": sum(self.layers),
            "digest": sha(self.name),
            "details": self.details,
        }

    @property
    def details(self) -> Json:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": self.parameter_size,
            "quantization_level": "Q8_0",
        }


@dataclass
class OllamaTestServer:
    """What a test sees of the server: what it was asked, and what to do wrong."""

    url: str
    models: dict[str, Model] = field(default_factory=dict)
    #: What a pull can bring.
    library: dict[str, Model] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    #: Path and body of every request.
    requests: list[tuple[str, Json]] = field(default_factory=list)
    #: Names of the models in memory.
    loaded: list[str] = field(default_factory=list)
    #: Bytes of each layer that pulls have brought.
    fetched: dict[str, int] = field(default_factory=dict)
    #: Set when an answer hangs, and when its client has closed the connection.
    hung: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def have(self, *models: Model) -> None:
        """Put models on the server."""
        self.models |= {model.name: model for model in models}

    def bodies(self, path: str) -> list[Json]:
        """Return what was posted to a path."""
        return [body for asked, body in self.requests if asked == path]


def sha(text: str) -> str:
    """Return a digest as Ollama lists it."""
    return hashlib.sha256(text.encode()).hexdigest()
