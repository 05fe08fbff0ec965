"""From a task and an engine's name to what serves them."""

import threading
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidInputError, UnsupportedTaskError
from shared.settings import Settings
from workers.inference.engines.base import BaseEngine
from workers.inference.handlers.base import BaseModelHandler
from workers.inference.registry import HandlerRegistry


@dataclass(frozen=True)
class Route:
    """An engine, and the handler that speaks to it for a task."""

    task: str
    engine: BaseEngine[Any]
    #: Validates every request; also prepares it unless the model's architecture has its own.
    handler: BaseModelHandler[Any]


class TaskRouter:
    """Chooses handlers and keeps one instance of each engine."""

    def __init__(self, registry: HandlerRegistry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._lock = threading.Lock()
        self._engines: dict[str, BaseEngine[Any]] = {}

    def route(self, task: str, engine_name: str) -> Route:
        """Return what serves the task on the engine."""
        if task not in (tasks := self._registry.tasks()):
            raise InvalidInputError(
                f"there is no task {task!r}; there are: {', '.join(tasks)}", field="task"
            )
        engine = self.engine(engine_name)
        handler = self._registry.handler(task, engine_name)
        if handler is None or task not in engine.supported_tasks:
            raise UnsupportedTaskError(f"the engine {engine_name} does not do {task}", field="task")
        return Route(task, engine, handler(self._settings))

    def specialise(self, route: Route, architecture: str | None) -> BaseModelHandler[Any]:
        """Return the handler made for the architecture, else the route's own."""
        variant = f"{route.engine.name}:{architecture}"
        special = self._registry.handler(route.task, variant)
        return special(self._settings) if special else route.handler

    def engine(self, name: str) -> BaseEngine[Any]:
        """Return the process's one instance of the engine."""
        with self._lock:
            if name not in self._engines:
                engine_class = self._registry.engine(name)
                if engine_class is None:
                    known = ", ".join(self._registry.engines())
                    raise InvalidInputError(
                        f"there is no engine {name!r}; there are: {known}", field="engine"
                    )
                self._engines[name] = engine_class(self._settings)
            return self._engines[name]

    def engines(self) -> list[str]:
        """Return the names of all engines."""
        return self._registry.engines()

    def handlers(self) -> list[str]:
        """Return all handlers as ``task:variant``."""
        return self._registry.handlers()

    def health(self) -> dict[str, Any]:
        """Return the names of all engines, and what those in use run on."""
        with self._lock:
            in_use = dict(self._engines)
        return {
            "handlers": self.handlers(),
            "engines": self._registry.engines(),
            "in_use": {name: engine.health() for name, engine in in_use.items()},
        }
