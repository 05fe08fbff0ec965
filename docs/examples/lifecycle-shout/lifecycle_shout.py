"""The engine ``shout`` and the task ``shouting``: says a text louder, as loud as the model is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from shared.errors import InvalidInputError, ModelLoadError
from shared.tasks import Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.handlers.base import BaseModelHandler

TASK = "shouting"


@dataclass
class ShoutModel(LoadedModel):
    """A voice in memory."""

    #: What it ends a shout with.
    ending: str


class ShoutEngine(BaseEngine[ShoutModel]):
    """Runs voices: directories with a ``voice.json`` such as ``{"ending": "!"}``."""

    name: ClassVar[str] = "shout"
    supported_tasks: ClassVar[frozenset[str]] = frozenset({TASK})

    def estimate_bytes(self, source: ModelSource) -> int:
        """Return the size of the file; it is not much more in memory."""
        return _voice(source).stat().st_size

    def load_model(self, source: ModelSource) -> ShoutModel:
        """Read the file."""
        file = _voice(source)
        try:
            ending = str(json.loads(file.read_bytes())["ending"])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{file.name} is no voice: {error}") from error
        return ShoutModel(
            architecture=None,
            tasks=self.supported_tasks,
            size_bytes=file.stat().st_size,
            device="cpu",
            ending=ending,
        )

    def infer(self, model: ShoutModel, inputs: str, call: InferenceCall) -> str:
        """Return the text, louder; word by word to those who listen."""
        words = [word.upper() for word in inputs.split()]
        for number, word in enumerate(words):
            call.token.check()
            if call.on_token is not None:
                call.on_token(f" {word}" if number else word)
        return " ".join(words)

    def unload_model(self, model: ShoutModel) -> None:
        """Do nothing: there is nothing beside the object."""


def _voice(source: ModelSource) -> Path:
    if source.directory is None or not (file := source.directory / "voice.json").is_file():
        raise ModelLoadError(f"{source.version.name} has no voice.json")
    return file


class ShoutOptions(Options):
    """What a request may set in ``options``."""

    #: How many times the voice's ending is said.
    times: Annotated[int, Field(ge=1, le=5)] = 1


class ShoutHandler(BaseModelHandler[ShoutModel]):
    """Takes ``{"text": "hello"}``, returns ``{"shout": "HELLO!"}``."""

    options_model: ClassVar[type[Options]] = ShoutOptions

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Take one text and nothing else."""
        if data.keys() != {"text"} or not isinstance(data["text"], str):
            raise InvalidInputError("shouting takes one text", field="data.text")

    def preprocess(self, model: ShoutModel, call: InferenceCall) -> str:
        """Return what ``infer`` of the engine takes."""
        return str(call.data["text"])

    def postprocess(
        self, model: ShoutModel, call: InferenceCall, inputs: str, output: str
    ) -> dict[str, Any]:
        """Return the task's result."""
        options = call.options
        assert isinstance(options, ShoutOptions)  # noqa: S101 - what parse_options has returned
        return {
            "shout": output + model.ending * options.times,
            "metadata": {"words": len(inputs.split())},
        }
