"""What an inference needs to know before it is accepted, from memory as far as possible.

Task, engine and priority of the model, and the queue: MLflow and Redis are asked by a few threads
of their own, so that only inferences wait while MLflow hangs.
"""

from dataclasses import replace

from cachetools import TTLCache

from api.callers import Caller
from api.own_files import check_files, names_files
from api.served import check_served, is_built_in
from api.threads import Threads
from shared.errors import UnavailableError, UnsupportedTaskError
from shared.ledger import NewJob, Presence, RecentEpoch
from shared.media.files import FileStore
from shared.models import ModelVersion
from shared.queue import InferenceQueues
from shared.registry import ModelRegistry
from shared.requests import InferRequest

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

    async def prepared(self, job: NewJob, request: InferRequest, caller: Caller) -> NewJob:
        """Return a job with its queue and priority; refuse what no worker could serve."""
        await self._check_served(request.task, request.engine)
        model = await self._model(request)
        if model is not None:
            _check_model(model, request)
        if caller.submitter is not None and names_files(request.data):
            await _THREADS.run(check_files, self._files, caller.submitter, request.data)
        queue = self._queues.remembered(request.engine)
        if queue is None:
            queue = await _THREADS.run(self._queues.of, request.engine)
        if request.priority is None and model is not None and model.has_priority:
            return replace(job, queue=queue, priority=FIRST)
        return replace(job, queue=queue)

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
