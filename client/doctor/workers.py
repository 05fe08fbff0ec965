"""The workers: alive, and taking jobs."""

from datetime import UTC, datetime, timedelta

from client import Client, ClientError, Job
from client.doctor.findings import Finding, Level
from client.doctor.scene import Scene
from shared.errors import LifecycleError
from shared.jobs import JobKind, JobState
from shared.ledger import WorkerInfo
from shared.queue import INFERENCE_OLLAMA

_KINDS = {"cpu": "CPU workers", "gpu": "GPU workers", "ollama": "Ollama workers"}
_WORK = {
    "cpu": "downloads, uploads or registers",
    "gpu": "answers requests",
    "ollama": "answers requests to models of Ollama",
}
#: A hint that was lost is published again long before.
_LONG_QUEUED = timedelta(seconds=60)


def workers(scene: Scene) -> list[Finding]:
    """Look at the workers of each kind, and at jobs that none of them takes."""
    try:
        alive = scene.presence().workers()
    except LifecycleError:
        return _as_the_api_sees(scene)
    with scene.client() as client:
        kinds = [kind for kind in _KINDS if kind != "ollama" or _has_ollama(scene, alive)]
        found = [_finding(scene, client, kind, alive) for kind in kinds]
    return found + _of_an_older_version(scene)


def _of_an_older_version(scene: Scene) -> list[Finding]:
    """Name the workers that do not see the jobs of this version."""
    try:
        old = scene.old_presence().workers()
    except LifecycleError:
        return []
    if not old:
        return []
    names = ", ".join(f"{worker.name} on {worker.host}" for worker in old)
    detail = f"{names}: takes none of this version's jobs"
    mend = "stop it, install this version there and start it; its running jobs go on here"
    return [Finding("Workers of an older version", Level.WARNING, detail, mend)]


def _has_ollama(scene: Scene, alive: list[WorkerInfo]) -> bool:
    """Return whether an Ollama worker is to be here; without one, GPU workers do its work."""
    return scene.starts("worker-ollama") or any(worker.kind == "ollama" for worker in alive)


def _as_the_api_sees(scene: Scene) -> list[Finding]:
    """Redis is nobody's but the platform's: from elsewhere only the API tells of workers."""
    with scene.client() as client:
        try:
            names = list(client.inference.health()["workers"])
        except ClientError:
            return [Finding("Workers", Level.UNKNOWN, "neither Redis nor the API can be asked")]
    unknown = Finding(_KINDS["cpu"], Level.UNKNOWN, "Redis cannot be asked from here")
    if not names:
        return [unknown, _none(scene, "gpu")]
    return [unknown, Finding(_KINDS["gpu"], Level.OK, ", ".join(names))]


def _finding(scene: Scene, client: Client, kind: str, alive: list[WorkerInfo]) -> Finding:
    mine = [worker for worker in alive if worker.kind == kind]
    if not mine:
        return _none(scene, kind)
    ill = {worker.name: worker.fault for worker in mine if worker.fault}
    waiting = _waiting_for(client, kind)
    idle = [worker.name for worker in mine if not worker.status["in_flight"]]
    if waiting:
        ill |= dict.fromkeys(idle, f"idle, but {len(waiting)} jobs wait")
    if ill:
        detail = "; ".join(f"{name}: {why}" for name, why in ill.items())
        mend = f"restart it{scene.log_of(f'worker-{kind}')}"
        return Finding(_KINDS[kind], Level.DOWN, detail, mend)
    busy = sum(worker.status["in_flight"] for worker in mine)
    names = ", ".join(worker.name for worker in mine)
    return Finding(_KINDS[kind], Level.OK, f"{names}; {busy} jobs in work")


def _none(scene: Scene, kind: str) -> Finding:
    mend = f"start one: python -m workers {kind}"
    if scene.starts(f"worker-{kind}"):
        mend = f"wait, it is restarted{scene.log_of(f'worker-{kind}')}"
    return Finding(_KINDS[kind], Level.DOWN, f"none is alive: nobody {_WORK[kind]}", mend)


def _kind_for(job: Job) -> str:
    """Return the kind of worker that a job waits for."""
    if job.kind is not JobKind.INFER:
        return "cpu"
    return "ollama" if job.queue == INFERENCE_OLLAMA else "gpu"


def _waiting_for(client: Client, kind: str) -> list[Job]:
    """Return jobs of a kind of worker that have waited too long for their first run."""
    try:
        queued = client.jobs.ls(state=JobState.QUEUED, limit=500).jobs
    except ClientError:
        return []
    now = datetime.now(UTC)
    return [
        job
        for job in queued
        if _kind_for(job) == kind and job.attempt == 0 and now - job.created_at > _LONG_QUEUED
    ]
