"""How well workers keep to the models that they have in memory.

Two workers with room for four models each serve jobs of twelve models, drawn by Zipf's law and sent
at a rate, whatever the answers do. A plugin's engine sleeps in place of loads and inferences, so
the workers share this machine's cores without harm. Then one worker with room for one model gets
200 jobs of two models in turn.
"""

# ruff: noqa: ARG002 - the sleeper takes all that the contracts hand it, and needs little of it

import os
import random
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from embedded.hub.process import HubProcess
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger, NewJob, connect
from shared.queue import INFERENCE
from shared.registry import ModelRegistry
from shared.requests import InferRequest
from shared.settings import LakeFSSettings, LedgerSettings, MLflowSettings, RedisSettings
from tests.platform import Platform
from tests.processes import free_port
from tests.servers import mlflow_running
from workers.inference.calls import InferenceCall
from workers.inference.engines.base import BaseEngine, LoadedModel, ModelSource
from workers.inference.handlers.base import BaseModelHandler

ROOT = Path(__file__).resolve().parents[1]
TASK = ENGINE = "sleeper"

MODELS, ZIPF = 12, 1.1
LOAD_SECONDS = 1.0
JOBS = 500
#: The two workers must come so near to one LRU of their common size.
LEAST_SHARE = 0.9

TWO_JOBS = 200
MOST_LOADS, MOST_LATER_SECONDS = 10, 30.0

_ENTRY_POINTS = f"""[lifecycle.engines]
{ENGINE} = {__name__}:SleepingEngine

[lifecycle.handlers]
{TASK}:{ENGINE} = {__name__}:SleepingHandler
"""


class SleepingEngine(BaseEngine[LoadedModel]):
    """Takes the time of a load and of an inference, and nothing else."""

    name: ClassVar[str] = ENGINE
    supported_tasks: ClassVar[frozenset[str]] = frozenset({TASK})

    def estimate_bytes(self, source: ModelSource) -> int:
        """Return next to nothing: the models are limited by their number."""
        return 1024

    def load_model(self, source: ModelSource) -> LoadedModel:
        """Take the time of a load."""
        time.sleep(LOAD_SECONDS)
        return LoadedModel(None, self.supported_tasks, 1024, "cpu")

    def infer(self, model: LoadedModel, inputs: float, call: InferenceCall) -> None:
        """Take the time that the request says."""
        call.token.wait(inputs)

    def unload_model(self, model: LoadedModel) -> None:
        """Do nothing."""


class SleepingHandler(BaseModelHandler[LoadedModel]):
    """Takes ``{"seconds": …}``; returns nothing but the platform's own metadata."""

    def validate_input(self, data: Mapping[str, Any]) -> None:
        """Find nothing wrong."""

    def preprocess(self, model: LoadedModel, call: InferenceCall) -> float:
        """Return how long it takes."""
        return float(call.data["seconds"])

    def postprocess(
        self,
        model: LoadedModel,
        call: InferenceCall,
        inputs: Any,
        output: Any,
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}


@dataclass(frozen=True)
class Load:
    """How many workers serve, and what they are asked."""

    workers: int
    #: Models that fit together in one worker.
    room: int
    run_seconds: float
    jobs_per_second: float


#: Without affinity the workers can just carry it.
ZIPF_LOAD = Load(workers=2, room=4, run_seconds=0.05, jobs_per_second=4.0)
#: All at once.
TWO_LOAD = Load(workers=1, room=1, run_seconds=0.1, jobs_per_second=10_000.0)


@dataclass(frozen=True)
class Served:
    """The jobs of one run in the order of their submission, all of which succeeded."""

    jobs: Sequence[Job]

    @property
    def loads(self) -> int:
        """How many jobs had to load their model."""
        return sum(not (job.result or {})["metadata"]["cache_hit"] for job in self.jobs)

    @property
    def hit_rate(self) -> float:
        """The share of the jobs that found their model in memory."""
        return 1 - self.loads / len(self.jobs)

    def seconds(self, share: float) -> float:
        """Return the time from submission to end that a share of the jobs did not exceed."""
        times = sorted(_seconds(job.created_at, job.finished_at) for job in self.jobs)
        return times[int(len(times) * share)]

    def latest_start(self, run_seconds: float) -> float:
        """Return how much later a job started than if all ran in order after a single load.

        All were submitted at once. In truth their order costs a load for each job.
        """
        first = min(job.created_at for job in self.jobs)
        starts = [_seconds(first, job.started_at) for job in self.jobs]
        ideal = [number * run_seconds for number in range(len(starts))]
        return max(start - other for start, other in zip(starts, ideal, strict=True))


def _seconds(since: Any, until: Any) -> float:
    return float((until - since).total_seconds())


@dataclass(frozen=True)
class Rig:
    """Redis, the registry with all models, and workers that are started for each load."""

    platform: Platform
    ledger: Ledger

    def serve(self, models: Sequence[str], load: Load, *, affinity_seconds: float) -> Served:
        """Start workers anew, send one job for each model named, and wait for all of them."""
        names = [f"gpu-{number}" for number in range(load.workers)]
        self.platform.env["INFERENCE_CACHE_MAX_MODELS"] = str(load.room)
        self.platform.env["LEDGER_AFFINITY_SECONDS"] = str(affinity_seconds)
        self.platform.start(*names)
        try:
            return Served(self._ended(self._submit(models, load)))
        finally:
            self.platform.stop(*names)

    def _submit(self, models: Sequence[str], load: Load) -> list[str]:
        """Send jobs at a rate, at times drawn beforehand."""
        pauses, at, ids = random.Random(5), time.monotonic(), []  # noqa: S311 - a load
        for model in models:
            at += pauses.expovariate(load.jobs_per_second)
            time.sleep(max(0.0, at - time.monotonic()))
            request = InferRequest(
                task=TASK, engine=ENGINE, model_name=model, data={"seconds": load.run_seconds}
            )
            job = NewJob(
                kind=JobKind.INFER,
                request=request.model_dump(mode="json"),
                queue=INFERENCE,
                model=model,
                max_attempts=1,
                affinity=request.affinity,
            )
            ids.append(self.ledger.accept(job)[0].id)
        return ids

    def _ended(self, job_ids: Sequence[str]) -> list[Job]:
        found = []
        for job_id in job_ids:
            while not (job := self.ledger.get(job_id)).state.terminal:
                time.sleep(0.2)
            if job.state is not JobState.SUCCEEDED:
                raise RuntimeError(f"job {job.id} ended as {job.state}: {job.error}")
            found.append(job)
        return found


def zipf_sequence(count: int) -> list[str]:
    """Return the models that jobs ask for, the same ones at each call."""
    weights = [1 / rank**ZIPF for rank in range(1, MODELS + 1)]
    ranks = random.Random(3).choices(range(MODELS), weights, k=count)  # noqa: S311 - a load
    return [f"sleeper-{rank}" for rank in ranks]


def lru_hit_rate(sequence: Sequence[str], room: int) -> float:
    """Return the hit rate of one cache that has seen the sequence in order."""
    warm: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for model in sequence:
        hits += model in warm
        warm[model] = None
        warm.move_to_end(model)
        if len(warm) > room:
            warm.popitem(last=False)
    return hits / len(sequence)


@contextmanager
def rig(directory: Path) -> Iterator[Rig]:
    """Run Redis and MLflow with the models registered, for the length of a block."""
    for name in ("mlflow", "hub", "run"):
        (directory / name).mkdir()
    _install(directory / "plugin")
    nobody = f"http://127.0.0.1:{free_port()}"
    keys = {"access_key_id": "bench", "secret_access_key": "bench-secret"}
    lakefs = LakeFSSettings.model_validate({"endpoint": nobody, **keys})
    env = {
        "PYTHONPATH": os.pathsep.join([str(directory / "plugin"), str(ROOT)]),
        "INFERENCE_DEVICE": "cpu",
        "WORKER_GPU_CONCURRENCY": "1",
        "LEDGER_LEASE_SECONDS": "15",
    }
    with (
        mlflow_running(directory / "mlflow") as mlflow_url,
        HubProcess(directory / "hub") as hub,
    ):
        # Not as a context manager, which starts workers too: the loads start their own.
        platform = Platform(directory / "run", mlflow_url, lakefs, hub, **env)
        registry = ModelRegistry(MLflowSettings.model_validate({"tracking_uri": mlflow_url}))
        for number in range(MODELS):
            name, tags = f"sleeper-{number}", {"inference_task": TASK, "engine": ENGINE}
            made = registry.create_version(name, None, tags, None, job_id=name)
            registry.set_stage(name, made.version, "production")
        platform.start("redis")
        redis = RedisSettings.model_validate({"url": platform.env["REDIS_URL"]})
        try:
            yield Rig(platform, Ledger(connect(redis), LedgerSettings()))
        finally:
            platform.stop()
            platform.http.close()


def _install(directory: Path) -> None:
    """Make the engine an installed package for those who have the directory on their path."""
    info = directory / "lifecycle_sleeper-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lifecycle-sleeper\nVersion: 1\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)


def measure_affinity(rig: Rig) -> bool:
    """Print what both loads came to, and return whether it is as it should be."""
    return all([_measure_zipf(rig), _measure_two(rig)])


def _measure_zipf(rig: Rig) -> bool:
    load, sequence = ZIPF_LOAD, zipf_sequence(JOBS)
    room = load.workers * load.room
    one = lru_hit_rate(sequence, room)
    near = rig.serve(sequence, load, affinity_seconds=LedgerSettings().affinity_seconds)
    plain = rig.serve(sequence, load, affinity_seconds=0)
    job_seconds = load.run_seconds + (1 - one) * LOAD_SECONDS
    print(
        f"load      {JOBS} jobs of {MODELS} models (Zipf {ZIPF}), {load.jobs_per_second:g}/s; "
        f"a load takes {LOAD_SECONDS:g} s, a run {load.run_seconds:g} s: with the hits of one LRU "
        f"{load.jobs_per_second * job_seconds / load.workers:.0%} of {load.workers} workers"
    )
    print(f"one LRU   hit rate {one:.3f} with room for {room}")
    for name, served in (("affinity", near), ("without", plain)):
        print(
            f"{name:9} hit rate {served.hit_rate:.3f}, {served.hit_rate / one:.2f} of one LRU; "
            f"p50 {served.seconds(0.5):.2f} s, p95 {served.seconds(0.95):.2f} s"
        )
    return near.hit_rate >= LEAST_SHARE * one and near.seconds(0.95) <= plain.seconds(0.95)


def _measure_two(rig: Rig) -> bool:
    sequence = [f"sleeper-{number % 2}" for number in range(TWO_JOBS)]
    served = rig.serve(sequence, TWO_LOAD, affinity_seconds=LedgerSettings().affinity_seconds)
    later = served.latest_start(TWO_LOAD.run_seconds)
    print(
        f"two       {TWO_JOBS} jobs of 2 models in turn, room for 1: {served.loads} loads; no job "
        f"more than {later:.1f} s later than in order without any load"
    )
    return served.loads <= MOST_LOADS and later <= MOST_LATER_SECONDS
