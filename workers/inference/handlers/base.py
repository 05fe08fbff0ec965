"""The contract of a handler: one task on one engine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic

from pydantic import ValidationError

from shared.errors import InvalidInputError
from shared.settings import Settings
from shared.tasks import Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import ModelT


class BaseModelHandler(ABC, Generic[ModelT]):
    """Stateless: what one call needs between its steps travels in what ``preprocess`` returns."""

    options_model: ClassVar[type[Options]] = Options

    def __init__(self, settings: Settings) -> None:
        """Keep the settings."""
        self.settings = settings

    @abstractmethod
    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Raise ``InvalidInputError`` with its field if ``data`` is not what the task takes."""

    def parse_options(self, options: Mapping[str, Any]) -> Options:
        """Return the options, validated."""
        try:
            return self.options_model.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(("options", *map(str, first["loc"])))
            words = first["msg"].removeprefix("Value error, ")  # pydantic's, before a validator's
            raise InvalidInputError(f"{field}: {words}", field=field) from None

    @abstractmethod
    def preprocess(self, model: ModelT, call: InferenceCall) -> Any:
        """Turn the task's input into the engine's."""

    @abstractmethod
    def postprocess(
        self, model: ModelT, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Turn the engine's output into the task's result; ``metadata`` in it is added to."""
