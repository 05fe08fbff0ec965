"""Which tasks and engines there are: the built-in ones, and what GPU workers announce."""

from shared.errors import InvalidInputError, UnsupportedTaskError
from shared.ledger import Presence
from shared.tasks import BUILT_IN_ENGINES, BUILT_IN_TASKS


def is_built_in(task: str, engine: str) -> bool:
    """Return whether a task and an engine are known without asking for workers' plugins."""
    return task in BUILT_IN_TASKS and engine in BUILT_IN_ENGINES


def check_served(presence: Presence, task: str, engine: str) -> None:
    """Refuse a task or an engine that is neither built in nor a plugin that a worker announced.

    A plugin is remembered while its workers are away, as what is built in is: the job waits.
    """
    if is_built_in(task, engine):
        return
    served = _announced(presence)
    tasks = BUILT_IN_TASKS | {each for each, _ in served}
    engines = BUILT_IN_ENGINES | {each for _, each in served}
    if task not in tasks:
        raise InvalidInputError(_unknown("task", task, tasks), field="task")
    if engine not in engines:
        raise InvalidInputError(_unknown("engine", engine, engines), field="engine")
    if (task, engine) not in served:
        raise UnsupportedTaskError(f"the engine {engine} does not do {task}", field="task")


def _announced(presence: Presence) -> set[tuple[str, str]]:
    """Return task and engine of every handler, without the architecture that it may be made for."""
    served = set()
    for handler in presence.handlers():
        task, _, variant = handler.partition(":")
        served.add((task, variant.partition(":")[0]))
    return served


def _unknown(what: str, name: str, known: frozenset[str]) -> str:
    return f"there is no {what} {name!r}; there are: {', '.join(sorted(known))}"
