"""Which handlers and engines there are: the built-in ones, plugins, and what is added by hand.

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
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from shared.errors import InternalError
from shared.tasks import NAME_PATTERN
from workers.inference.engines.base import BaseEngine
from workers.inference.handlers.base import BaseModelHandler

HandlerClass = type[BaseModelHandler[Any]]
EngineClass = type[BaseEngine[Any]]

ENGINES = "lifecycle.engines"
HANDLERS = "lifecycle.handlers"

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
