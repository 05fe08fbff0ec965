"""The Ollama engine with its handler, used as the executor of a worker uses them."""

from dataclasses import dataclass, field
from typing import Any

from shared.cancellation import CancelToken
from shared.models import ModelVersion
from shared.settings import InferenceSettings, OllamaSettings, Settings
from shared.tasks import Engine, Task
from tests.ollama_server import OllamaTestServer
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import ModelSource
from workers.inference.engines.ollama_engine import OllamaEngine
from workers.inference.handlers.ollama_text import OllamaTextHandler
from workers.inference.registry import HandlerRegistry, TaskRouter

MODEL = "echo:1b"


@dataclass
class Asked:
    """An engine with its handler, and what they handed out."""

    settings: Settings
    token: CancelToken = field(default_factory=CancelToken)
    heard: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    progress: list[tuple[int, int | None, str, str]] = field(default_factory=list)
    #: Of the version that is asked.
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        registry = HandlerRegistry()
        registry.register_engine_manually(OllamaEngine)
        registry.register_handler_manually("text-generation", "ollama", OllamaTextHandler)
        self.route = TaskRouter(registry, self.settings).route(Task.TEXT_GENERATION, "ollama")

    def load(self, **tags: str) -> Any:
        tags = tags or {"ollama_model_name": MODEL}
        version = ModelVersion(
            "echo", "1", "production", Task.TEXT_GENERATION, Engine.OLLAMA, None, tags=tags
        )
        source = ModelSource(version, Task.TEXT_GENERATION, None)
        self.route.engine.check_model(source)
        assert self.route.engine.estimate_bytes(source) == 0
        return self.route.engine.load_model(source)

    def infer(self, inputs: object, **options: object) -> dict[str, Any]:
        """Load the model and ask it."""
        self.route.handler.validate_input({"inputs": inputs})
        self.route.handler.parse_options(options)
        return self.use(self.load(**self.tags), inputs, **options)

    def use(self, model: Any, inputs: object, **options: object) -> dict[str, Any]:
        """Ask a model that is loaded."""
        handler = self.route.handler
        call = InferenceCall(
            Task.TEXT_GENERATION,
            {"inputs": inputs},
            handler.parse_options(options),
            self.token,
            self.heard.append,
            lambda *report: self.progress.append(report),
            self.thoughts.append,
        )
        prepared = handler.preprocess(model, call)
        output = self.route.engine.infer(model, prepared, call)
        return handler.postprocess(model, call, prepared, output)


def asked(remote: OllamaTestServer, **settings: object) -> Asked:
    ollama = OllamaSettings.model_validate({"host": remote.url, **settings})
    return Asked(
        Settings(
            ollama=ollama, inference=InferenceSettings(max_new_tokens=5, max_thinking_tokens=3)
        )
    )
