"""All kinds of jobs, done in this process on real stores, each behind a proxy that can fail."""

import gc
import json
import os
import shutil
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from shared.import_request import ImportRequest
from shared.jobs import Job, JobKind, JobState
from shared.lakefs.store import LakeFSStore
from shared.ledger import Ledger, NewJob, OwnedBranches, Placement, Presence, Want
from shared.queue import (
    DOWNLOADS,
    INFERENCE,
    REGISTRATIONS,
    UPLOADS,
    InferenceQueues,
    uploads_of,
)
from shared.registry import ModelRegistry
from shared.requests import (
    DownloadRequest,
    InferRequest,
    JobRequest,
    RegisterOllamaRequest,
    RegisterRequest,
    UploadRequest,
)
from shared.settings import LakeFSSettings, LedgerSettings, Settings
from tests.ollama_server import Model, OllamaTestServer, ollama_server
from tests.processes import wait_until
from tests.switched_proxy import SwitchedProxy, switched_proxy
from tests.tiny_models import tiny_llama
from workers.context import JobContext, Work
from workers.inference.manager import InferenceManager, build_manager
from workers.lifecycle.works import lifecycle_works
from workers.process.heartbeat import Heartbeat
from workers.process.runner import Runner, RunOutcome
from workers.process.slots import Slots

#: Files of the model that is moved, so that a transfer has a middle.
NOISE_BYTES = 6_000_000
BYTES_PER_SECOND = 6_000_000
SLOTS = 8
HUB_MODEL = "tests/tiny"
#: The same files, staged for uploads, which no other job touches.
STAGED_MODEL = "tests/staged"
OLLAMA_MODEL = "echo:0.5b"
PROMPT = {"inputs": "the quick brown fox jumps over the lazy dog and runs away"}
WORDS = {"max_new_tokens": 8, "do_sample": False}

#: Where jobs wait, as at an API process; imports bring children into all of these queues.
QUEUES = {
    JobKind.DOWNLOAD: DOWNLOADS,
    JobKind.UPLOAD: UPLOADS,
    JobKind.REGISTER: REGISTRATIONS,
    JobKind.IMPORT: REGISTRATIONS,
    JobKind.INFER: INFERENCE,
}

#: Each kind of job with each service that it uses, and after how many bytes the service goes away.
CASES: dict[str, tuple[str, int]] = {
    "download": ("hub", NOISE_BYTES // 2),
    "upload": ("lakeFS", NOISE_BYTES // 2),
    "register lakefs": ("lakeFS", 500),
    "register mlflow": ("MLflow", 500),
    "import hub": ("hub", NOISE_BYTES // 2),
    "import lakefs": ("lakeFS", NOISE_BYTES // 2),
    "import mlflow": ("MLflow", 500),
    "infer lakefs": ("lakeFS", NOISE_BYTES // 2),
    "infer mlflow": ("MLflow", 100),
    "download ollama": ("Ollama", 100),
    "register ollama": ("Ollama", 100),
    "infer ollama": ("Ollama", 900),
}


class Scene:
    """A ledger, a worker's slots and the stores."""

    def __init__(
        self,
        client: "redis.Redis",
        settings: Settings,
        proxies: dict[str, SwitchedProxy],
        ollama: OllamaTestServer,
    ) -> None:
        self.proxies = proxies
        self._ollama = ollama
        self._settings = settings
        self.ledger = Ledger(client, settings.ledger)
        self.heartbeat = Heartbeat(
            "all@here", self.ledger, settings.ledger.heartbeat_seconds, lambda: None
        )
        self._registry = ModelRegistry(settings.mlflow)
        placement = Placement(client, settings.ledger)
        branches = OwnedBranches(client, settings.ledger)
        queues = InferenceQueues(Presence(client, settings.ledger))
        parts = lifecycle_works(settings, self.ledger, self._registry, placement, branches, queues)
        self.manager = build_manager(settings, self._registry, LakeFSStore(settings.lakefs))
        infer: Work = lambda context: _infer(self.manager, context)  # noqa: E731
        works = {**parts.works, JobKind.INFER: infer}
        runner = Runner(self.ledger, self.heartbeat, works, settings.ledger)
        served = (*dict.fromkeys(QUEUES.values()), uploads_of(settings.storage.host_id))
        want = Want(slot="all@here/", owner="all@here", queues=served)
        self._slots = Slots(want, SLOTS, self.ledger, self.heartbeat, runner, Unobserved())
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self.heartbeat.run, self._reconcile)
        ]
        #: What the registrations of the cases register.
        self.uploaded: dict[str, Any] = {}

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        self._slots.start()
        self.do("download", model_name=STAGED_MODEL)
        self.uploaded = self.do("upload")
        self.do("register lakefs", registered_name="served", stage="production")
        self.do("download ollama")
        self.do("register ollama", registered_name="echo", stage="production")

    def close(self) -> None:
        self._ended.set()
        self._slots.stop()
        self.heartbeat.stop_work()
        self._slots.wait(10)
        self.heartbeat.stop()
        for thread in self._threads:
            thread.join(10)
        # The works have no end at which they would close their connections.
        del self._slots, self._registry, self.manager
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    def do(self, case: str, **more: Any) -> dict[str, Any]:
        """Do a job that nothing disturbs; return its result."""
        job = self.ended(self.submit(case, **more))
        assert job.state is JobState.SUCCEEDED, f"{case}: {job.error}"
        assert job.result is not None
        return job.result

    def submit(self, case: str, **more: Any) -> str:
        """Submit the job of a case, on something that no other job has touched."""
        kind = JobKind(case.split(maxsplit=1)[0])
        self._forget(case)
        request = self._request(case, **more)
        new = NewJob(
            kind=kind,
            request=json.loads(request.model_dump_json(exclude_none=True)),
            queue=QUEUES[kind],
            model=case,
            max_attempts=3,
        )
        return self.ledger.accept(new)[0].id

    def ended(self, job_id: str, timeout_seconds: float = 300) -> Job:
        """Wait for a job's end."""
        wait_until(lambda: self.ledger.ended(job_id), timeout_seconds, what=f"job {job_id} ends")
        return self.ledger.get(job_id)

    def _request(self, case: str, **more: Any) -> JobRequest:  # noqa: PLR0911 - one for each
        name = f"m-{uuid.uuid4().hex[:12]}"
        hub = {"model_source": "huggingface", "model_name": HUB_MODEL}
        match case.split():
            case ["download"]:
                return DownloadRequest.model_validate(hub | more)
            case ["upload"]:
                repo = {"repo_name": name, "local_model_name": "tests_staged"}
                return UploadRequest.model_validate(repo | more)
            case ["register", "lakefs" | "mlflow"]:
                commit = {
                    "lakefs_repo": self.uploaded["repo_name"],
                    "commit_id": self.uploaded["commit_id"],
                    "task": "text-generation",
                    "registered_name": name,
                }
                return RegisterRequest.model_validate(commit | more)
            case ["import", _]:
                steps = {"task": "text-generation", "registered_name": name, "repo_name": name}
                return ImportRequest.model_validate(hub | steps | {"stage": "staging"} | more)
            case ["infer", "lakefs" | "mlflow"]:
                ask = {"task": "text-generation", "model_name": "served", "data": PROMPT}
                return InferRequest.model_validate(ask | {"options": WORDS} | more)
            case ["download", "ollama"]:
                pull = {"model_source": "ollama", "model_name": OLLAMA_MODEL}
                return DownloadRequest.model_validate(pull | more)
            case ["register", "ollama"]:
                return RegisterOllamaRequest.model_validate(
                    {"local_model_name": OLLAMA_MODEL, "registered_name": name} | more
                )
            case ["infer", "ollama"]:
                ask = {"task": "text-generation-ollama", "model_name": "echo", "data": PROMPT}
                return InferRequest.model_validate(ask | {"stream": True} | more)
        raise ValueError(case)

    def _forget(self, case: str) -> None:
        """Have the case's job move its bytes."""
        storage = self._settings.storage
        if case in {"download", "import hub"}:
            shutil.rmtree(storage.staging_dir / "tests_tiny", ignore_errors=True)
        if case == "download ollama":
            self._ollama.models.pop(OLLAMA_MODEL, None)
        elif case.endswith("ollama"):
            self._ollama.have(self._ollama.library[OLLAMA_MODEL])
        if case == "infer lakefs":
            self.manager.clear_cache()
            shutil.rmtree(storage.snapshots_dir, ignore_errors=True)

    def _reconcile(self) -> None:
        while not self._ended.wait(self._settings.ledger.reconcile_seconds):
            self.ledger.reconcile()


class Unobserved:
    """Is told of runs and does nothing."""

    def started(self, job: Job) -> None:
        """Do nothing."""

    def left(self, job: Job, outcome: RunOutcome, seconds: float) -> None:
        """Do nothing."""


def _infer(manager: InferenceManager, context: JobContext) -> dict[str, Any]:
    request = InferRequest.model_validate(context.job.request)
    return manager.infer(
        request.task,
        request.engine,
        request.model_name,
        request.data,
        request.options,
        token=context.cancel,
        on_token=context.emit if request.stream else None,
        on_progress=context.report,
    )


@contextmanager
def outage_scene(
    directory: Path,
    client: "redis.Redis",
    redis_url: str,
    mlflow_url: str,
    lakefs: LakeFSSettings,
    ledger: LedgerSettings,
) -> Iterator[Scene]:
    """Set the scene on stores that run; the hub and Ollama are its own."""
    model = tiny_llama(directory / "tiny")
    (model / "noise.txt").write_bytes(os.urandom(NOISE_BYTES))
    (directory / "hub").mkdir()
    for name in (HUB_MODEL, STAGED_MODEL):
        publish(directory / "hub", name, model)
    with ExitStack() as stack:
        hub = stack.enter_context(HubProcess(directory / "hub"))
        ollama = stack.enter_context(ollama_server())
        ollama.library[OLLAMA_MODEL] = Model(OLLAMA_MODEL)
        ollama.token_seconds = 0.1
        limit: Callable[[str], SwitchedProxy] = lambda url: stack.enter_context(  # noqa: E731
            switched_proxy(url, BYTES_PER_SECOND)
        )
        urls = {"hub": hub.url, "lakeFS": lakefs.endpoint, "MLflow": mlflow_url}
        proxies = {name: limit(url) for name, url in (urls | {"Ollama": ollama.url}).items()}
        settings = Settings.model_validate(
            {
                "redis": {"url": redis_url},
                "ledger": ledger,
                "hub": {"endpoint": proxies["hub"].url},
                "lakefs": lakefs.model_copy(update={"endpoint": proxies["lakeFS"].url}),
                "mlflow": {
                    "tracking_uri": proxies["MLflow"].url,
                    "resolution_cache_seconds": 0,
                    "timeout_seconds": 60,
                },
                "ollama": {"host": proxies["Ollama"].url, "timeout_seconds": 60},
                "storage": {
                    "staging_dir": directory / "staging",
                    "snapshots_dir": directory / "snapshots",
                    "reserve_bytes": 0,
                },
            }
        )
        scene = Scene(client, settings, proxies, ollama)
        try:
            scene.start()
            yield scene
        finally:
            scene.close()
