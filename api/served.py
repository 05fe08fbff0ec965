"""Which tasks and engines there are: the built-in ones, and what live GPU workers announce."""

from collections.abc import Iterable

from shared.errors import InvalidInputError, UnavailableError, UnsupportedTaskError
from shared.ledger import Presence, WorkerInfo
from shared.tasks import BUILT_IN_ENGINES, BUILT_IN_TASKS


def check_served(presence: Presence, task: str, engine: str) -> None:
    """Refuse a task or an engine that is neither built in nor a plugin of a worker that is alive.

    Workers are looked at for plugins only, so what is built in is accepted without any. While no
    GPU worker is alive nobody knows what the plugins are, and the client may ask again.
    """
    if task in BUILT_IN_TASKS and engine in BUILT_IN_ENGINES:
        return
    workers = [worker for worker in presence.workers() if worker.kind == "gpu"]
    if not workers:
        raise UnavailableError(
            f"no GPU worker is alive that could say whether there is a task {task!r} on {engine!r}",
            code="no_gpu_worker",
        )
    served = _announced(workers)
    tasks = BUILT_IN_TASKS | {each for each, _ in served}
    engines = BUILT_IN_ENGINES | {each for _, each in served}
    if task not in tasks:
        raise InvalidInputError(_unknown("task", task, tasks), field="task")
    if engine not in engines:
        raise InvalidInputError(_unknown("engine", engine, engines), field="engine")
    if (task, engine) not in served:
        raise UnsupportedTaskError(f"the engine {engine} does not do {task}", field="task")


def _announced(workers: Iterable[WorkerInfo]) -> set[tuple[str, str]]:
    """Return task and engine of every handler, without the architecture that it may be made for."""
    served = set()
    for worker in workers:
        for handler in worker.status["inference"]["stats"]["handlers"]:
            task, _, variant = handler.partition(":")
            served.add((task, variant.partition(":")[0]))
    return served


def _unknown(what: str, name: str, known: frozenset[str]) -> str:
    return f"there is no {what} {name!r}; there are: {', '.join(sorted(known))}"
