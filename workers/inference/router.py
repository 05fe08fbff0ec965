"""From a task and an engine's name to what serves them."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidInputError, LifecycleError, UnsupportedTaskError
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


#: A health report waits this long for an engine.
HEALTH_SECONDS = 0.2


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
