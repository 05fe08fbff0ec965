"""What an inference needs to know before it is accepted, from memory as far as possible.

Task, engine and priority of the model, and the queue: MLflow and Redis are asked by a few threads
of their own, so that only inferences wait while MLflow hangs.
"""

from cachetools import TTLCache

from api.callers import Caller
from api.own_files import check_files, names_files
from api.threads import Threads
from shared.errors import InvalidInputError, UnavailableError, UnsupportedTaskError
from shared.ledger import NewJob, Presence, RecentEpoch
from shared.media.files import FileStore
from shared.models import ModelVersion
from shared.queue import InferenceQueues
from shared.registry import ModelRegistry
from shared.requests import InferRequest
from shared.tasks import BUILT_IN_ENGINES, BUILT_IN_TASKS

#: Priority of a job whose request does not say, for a model with priority.
FIRST = 0
#: A plugin is taken to be announced for this time after it was.
_ANNOUNCED_SECONDS = 60
#: Threads that ask: more of them at once would be slower together.
_THREADS = Threads(2)


class ServableModels:
    """Checks inferences against the registry and the workers; belongs to one event loop."""

    def __init__(
        self,
        registry: ModelRegistry,
        epoch: RecentEpoch,
        presence: Presence,
        queues: InferenceQueues,
        files: FileStore,
    ) -> None:
        self._registry = registry
        self._epoch = epoch
        self._presence = presence
        self._queues = queues
        self._files = files
        #: Tasks and engines of plugins that workers announced not long ago.
        self._announced: TTLCache[tuple[str, str], bool] = TTLCache(1024, _ANNOUNCED_SECONDS)

    async def prepare(self, job: NewJob, request: InferRequest, caller: Caller) -> None:
        """Set a job's queue and priority; refuse what no worker could serve."""
        await self._check_served(request.task, request.engine)
        model = await self._model(request)
        if model is not None:
            _check_model(model, request)
        if caller.submitter is not None and names_files(request.data):
            await _THREADS.run(check_files, self._files, caller.submitter, request.data)
        queue = self._queues.remembered(request.engine)
        if queue is None:
            queue = await _THREADS.run(self._queues.of, request.engine)
        job.queue = queue
        if request.priority is None and model is not None and model.has_priority:
            job.priority = FIRST

    async def _check_served(self, task: str, engine: str) -> None:
        if not is_built_in(task, engine) and (task, engine) not in self._announced:
            await _THREADS.run(check_served, self._presence, task, engine)
            self._announced[task, engine] = True

    async def _model(self, request: InferRequest) -> ModelVersion | None:
        """Return the version that is asked for; None while MLflow is away: the worker finds out."""
        asked = request.model_name, request.version, request.stage
        model = self._registry.remembered(*asked, await self._epoch.now())
        if model is None:
            try:
                return await _THREADS.run(self._registry.resolve, *asked)
            except UnavailableError:
                return None
        return model


def _check_model(model: ModelVersion, request: InferRequest) -> None:
    name = f"{model.name} version {model.version}"
    if model.task != request.task:
        raise UnsupportedTaskError(f"{name} is registered for {model.task}", field="task")
    if model.engine != request.engine:
        raise UnsupportedTaskError(f"{name} runs on {model.engine}", field="engine")


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
