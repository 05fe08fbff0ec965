"""Which handlers and engines there are, and which of them serve a request.

There are the built-in ones, plugins, and what is added by hand.

A plugin is a package with entry points; nothing here changes for it:

    [project.entry-points."lifecycle.engines"]
    vllm = "my_package:VllmEngine"
    [project.entry-points."lifecycle.handlers"]
    "text-generation:vllm" = "my_package:VllmTextHandler"

docs/extending.md walks through one. A handler's variant is an engine's name, or
``engine:Architecture`` to specialise it.
"""

import re
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from shared.errors import InternalError, InvalidInputError, LifecycleError, UnsupportedTaskError
from shared.settings import Settings
from shared.tasks import NAME_PATTERN
from workers.inference.engines.base import BaseEngine
from workers.inference.handlers.base import BaseModelHandler

HandlerClass = type[BaseModelHandler[Any]]
EngineClass = type[BaseEngine[Any]]

ENGINES = "lifecycle.engines"
HANDLERS = "lifecycle.handlers"
#: A health report waits this long for an engine.
HEALTH_SECONDS = 0.2

_HERE = "workers.inference"
#: Entry points as a plugin's are, so that torch is imported only where an engine is asked for.
_BUILT_IN = (
    EntryPoint("transformers", f"{_HERE}.engines.transformers_engine:TransformersEngine", ENGINES),
    EntryPoint(
        "text-generation:transformers",
        f"{_HERE}.handlers.text_generation:TextGenerationHandler",
        HANDLERS,
    ),
    EntryPoint("vlm:transformers", f"{_HERE}.handlers.vlm:VlmHandler", HANDLERS),
    EntryPoint("ocr:transformers", f"{_HERE}.handlers.ocr:OcrHandler", HANDLERS),
    EntryPoint(
        "ocr:transformers:VisionEncoderDecoderModel",
        f"{_HERE}.handlers.page_reading:PageOcrHandler",
        HANDLERS,
    ),
    EntryPoint(
        "ocr:transformers:GotOcr2ForConditionalGeneration",
        f"{_HERE}.handlers.got_ocr:GotOcrHandler",
        HANDLERS,
    ),
    EntryPoint(
        "video-analysis:transformers",
        f"{_HERE}.handlers.video_analysis:VideoAnalysisHandler",
        HANDLERS,
    ),
    EntryPoint(
        "document-analysis:transformers",
        f"{_HERE}.handlers.document_analysis:DocumentAnalysisHandler",
        HANDLERS,
    ),
    EntryPoint(
        "document-analysis:transformers:VisionEncoderDecoderModel",
        f"{_HERE}.handlers.page_reading:PageDocumentHandler",
        HANDLERS,
    ),
    *(
        EntryPoint(
            f"document-analysis:transformers:{architecture}",
            f"{_HERE}.handlers.word_finding:WordFindingHandler",
            HANDLERS,
        )
        for architecture in ("LayoutLMForQuestionAnswering", "LayoutLMv3ForQuestionAnswering")
    ),
    EntryPoint("asr:transformers", f"{_HERE}.handlers.asr:CtcHandler", HANDLERS),
    EntryPoint(
        "asr:transformers:WhisperForConditionalGeneration",
        f"{_HERE}.handlers.whisper:WhisperHandler",
        HANDLERS,
    ),
    EntryPoint(
        "audio-classification:transformers",
        f"{_HERE}.handlers.audio_classification:AudioClassificationHandler",
        HANDLERS,
    ),
    EntryPoint("ollama", f"{_HERE}.engines.ollama_engine:OllamaEngine", ENGINES),
    EntryPoint(
        "text-generation:ollama", f"{_HERE}.handlers.ollama_text:OllamaTextHandler", HANDLERS
    ),
)


class HandlerRegistry:
    """Finds handler and engine classes by name; what is registered later wins."""

    def __init__(self, only_engine: str | None = None) -> None:
        """Take the engine that everything is limited to, if there is one."""
        self._only_engine = only_engine
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, EntryPoint]] | None = None
        self._handlers: dict[str, HandlerClass] = {}
        self._engines: dict[str, EngineClass] = {}

    def register_handler_manually(self, task: str, variant: str, cls: HandlerClass) -> None:
        """Serve ``task`` by ``cls`` where the variant fits."""
        if not (isinstance(cls, type) and issubclass(cls, BaseModelHandler)):
            raise InternalError(f"{cls!r} is not a BaseModelHandler")
        if not re.fullmatch(NAME_PATTERN, task):
            raise InternalError(f"a task cannot be named {task!r}")
        with self._lock:
            self._handlers[f"{task}:{variant}"] = cls

    def register_engine_manually(self, cls: EngineClass) -> None:
        """Offer an engine under its own name."""
        if not (isinstance(cls, type) and issubclass(cls, BaseEngine)):
            raise InternalError(f"{cls!r} is not a BaseEngine")
        with self._lock:
            self._engines[cls.name] = cls

    def engine(self, name: str) -> EngineClass | None:
        """Return the engine's class; None if there is none of that name."""
        if name not in self._engines and (point := self._entry_points(ENGINES).get(name)):
            self.register_engine_manually(point.load())
        return self._engines.get(name)

    def handler(self, task: str, variant: str) -> HandlerClass | None:
        """Return the class registered for exactly this variant; None if there is none."""
        name = f"{task}:{variant}"
        if name not in self._handlers and (point := self._entry_points(HANDLERS).get(name)):
            self.register_handler_manually(task, variant, point.load())
        return self._handlers.get(name)

    def engines(self) -> list[str]:
        """Return the names of all engines."""
        return sorted({*self._engines, *self._entry_points(ENGINES)})

    def handlers(self) -> list[str]:
        """Return all handlers as ``task:variant``."""
        return sorted({*self._handlers, *self._entry_points(HANDLERS)})

    def tasks(self) -> list[str]:
        """Return the tasks that have a handler."""
        return sorted({handler.partition(":")[0] for handler in self.handlers()})

    def _entry_points(self, group: str) -> dict[str, EntryPoint]:
        """Return the group's entry points by name; looked up once."""
        with self._lock:
            if self._found is None:
                found = [*_BUILT_IN, *entry_points(group=ENGINES), *entry_points(group=HANDLERS)]
                self._found = {
                    group: {
                        point.name: point
                        for point in found
                        if point.group == group and self._is_wanted(point)
                    }
                    for group in (ENGINES, HANDLERS)
                }
            return self._found[group]

    def _is_wanted(self, point: EntryPoint) -> bool:
        engine = point.name if point.group == ENGINES else point.name.split(":")[1]
        return self._only_engine in {None, engine}


#: Where packages add handlers by hand; managers use it unless they are given another.
model_registry = HandlerRegistry()


@dataclass(frozen=True)
class Route:
    """An engine, and the handler that speaks to it for a task."""

    task: str
    engine: BaseEngine[Any]
    #: Validates every request; also prepares it unless the model's architecture has its own.
    handler: BaseModelHandler[Any]


class _HealthQuestion:
    """Asks an engine for its health, in a thread: a plugin's answer may fail, hang or be slow."""

    def __init__(self, engine: BaseEngine[Any]) -> None:
        self._engine = engine
        self._asked_at = time.monotonic()
        self._answer: dict[str, Any] = {}
        self.answered = threading.Event()
        threading.Thread(target=self._ask, name=f"health-{engine.name}", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._answer = self._engine.health()
        except LifecycleError as error:
            self._answer = {"error": error.detail}
        except Exception as error:  # noqa: BLE001 - the report shows it
            self._answer = {"error": f"{type(error).__name__}: {error}"}
        finally:
            self.answered.set()

    def answer(self) -> dict[str, Any]:
        """Return the engine's answer, or that there is none yet."""
        if self.answered.wait(HEALTH_SECONDS):
            return self._answer
        return {"error": f"no answer for {time.monotonic() - self._asked_at:.1f} s"}


class TaskRouter:
    """Chooses handlers and keeps one instance of each engine."""

    def __init__(self, registry: HandlerRegistry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._engines: dict[str, BaseEngine[Any]] = {}
        #: Held while an engine starts, which may take minutes; one for each engine.
        self._starting: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._questions: dict[str, _HealthQuestion] = {}

    def route(self, task: str, engine_name: str) -> Route:
        """Return what serves the task on the engine."""
        handler = self._registry.handler(task, engine_name)
        if handler is None and task not in (tasks := self._registry.tasks()):
            raise InvalidInputError(
                f"there is no task {task!r}; there are: {', '.join(tasks)}", field="task"
            )
        engine = self.engine(engine_name)
        if handler is None or task not in engine.supported_tasks:
            raise UnsupportedTaskError(f"the engine {engine_name} does not do {task}", field="task")
        return Route(task, engine, handler(self._settings))

    def specialise(self, route: Route, architecture: str | None) -> BaseModelHandler[Any]:
        """Return the handler made for the architecture, else the route's own."""
        variant = f"{route.engine.name}:{architecture}"
        special = self._registry.handler(route.task, variant)
        return special(self._settings) if special else route.handler

    def engine(self, name: str) -> BaseEngine[Any]:
        """Return the process's one instance of the engine; start it if nobody has asked before."""
        if (engine := self._engines.get(name)) is not None:
            return engine
        engine_class = self._registry.engine(name)
        if engine_class is None:
            known = ", ".join(self._registry.engines())
            raise InvalidInputError(
                f"there is no engine {name!r}; there are: {known}", field="engine"
            )
        with self._starting[name]:
            if name not in self._engines:
                self._engines[name] = engine_class(self._settings)
            return self._engines[name]

    def engines(self) -> list[str]:
        """Return the names of all engines."""
        return self._registry.engines()

    def handlers(self) -> list[str]:
        """Return all handlers as ``task:variant``."""
        return self._registry.handlers()

    def health(self) -> dict[str, Any]:
        """Return the names of all engines, and what those in use run on.

        It waits for no engine that starts, and at most ``HEALTH_SECONDS`` for one that is asked.
        """
        asked = {name: self._question(name, engine) for name, engine in list(self._engines.items())}
        return {
            "handlers": self.handlers(),
            "engines": self._registry.engines(),
            "in_use": {name: question.answer() for name, question in asked.items()},
        }

    def _question(self, name: str, engine: BaseEngine[Any]) -> _HealthQuestion:
        """Ask an engine, unless it still owes the answer to the last question."""
        last = self._questions.get(name)
        if last is None or last.answered.is_set():
            last = self._questions[name] = _HealthQuestion(engine)
        return last
