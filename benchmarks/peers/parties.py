"""The systems that are compared: how each is started and called."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.peers.environments import environment
from benchmarks.serving import Json, Serving
from embedded.redis import redis_command
from tests.chaos.misbehaviour import Deed
from tests.processes import free_port, listens, start, stop, wait_until

PROGRAMS = Path(__file__).parent / "programs"
#: How long a call for an answer may be held.
ANSWER_SECONDS = 60
TEXT = "hello"
START_SECONDS = 120


@dataclass(frozen=True)
class Call:
    """A POST that the clients repeat, and what each answer must contain."""

    url: str
    body: Json
    expected: str
    status: int = 200


@dataclass(frozen=True)
class Party:
    """A running system."""

    name: str
    answer: Call
    #: Returns the id of a job. None: the system has no jobs.
    submit: Call | None = None
    #: Another call for an answer at the same system, measured under a name of its own.
    others: Mapping[str, Call] = field(default_factory=dict)
    #: The processes that were started for it; empty for ours, whose leases must not run out.
    pids: tuple[int, ...] = ()

    def suspend(self) -> None:
        """Stop the processes from running: Ray uses an eighth of a core while it is idle."""
        for process in self._processes():
            process.suspend()

    def resume(self) -> None:
        """Let the processes run again."""
        for process in self._processes():
            process.resume()

    def _processes(self) -> Iterator[psutil.Process]:
        for pid in self.pids:
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)


def ours(serving: Serving) -> Party:
    """Return this platform: one API process and one GPU worker, whose engine does nothing."""
    url = str(serving.platform.http.base_url.join("/inference/infer"))
    body = serving.question(Deed.ECHO, text=TEXT)
    answer = Call(f"{url}?wait={ANSWER_SECONDS}", body, f'"generated_text":"{TEXT}"')
    return Party("ours", answer, Call(f"{url}?wait=0", body, '"job_id"', status=202))


@contextmanager
def celery(directory: Path, programs: Path) -> Iterator[Party]:
    """Run FastAPI in one process, a Celery worker of two, and a Redis of their own."""
    redis_port, port = free_port(), free_port()
    env = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "PYTHONPATH": str(PROGRAMS)}
    worker = ["-A", "fastapi_celery:queue", "worker", "--concurrency", "2", "--loglevel", "warning"]
    api = ["fastapi_celery:app", "--port", str(port), "--log-level", "warning"]
    redis = redis_command(redis_port, directory)
    with (
        _running(redis, directory / "redis.log", {}, redis_port) as redis_pid,
        _running([str(programs / "celery"), *worker], directory / "worker.log", env) as worker_pid,
        _running([str(programs / "uvicorn"), *api], directory / "api.log", env, port) as api_pid,
    ):
        url = f"http://127.0.0.1:{port}"
        body, echoed = {"text": TEXT}, f'"text":"{TEXT}"'
        yield Party(
            "celery",
            Call(f"{url}/answer", body, echoed),
            Call(f"{url}/submit", body, '"job_id"'),
            {"fastapi alone": Call(f"{url}/alone", body, echoed)},
            (redis_pid, worker_pid, api_pid),
        )


@contextmanager
def litserve(directory: Path, programs: Path) -> Iterator[Party]:
    """Run LitServe with one worker."""
    port = free_port()
    command = [str(programs / "python"), str(PROGRAMS / "litserve_echo.py"), str(port)]
    with _running(command, directory / "log", {}, port) as pid:
        yield _echoing("litserve", pid, f"http://127.0.0.1:{port}/predict")


@contextmanager
def bentoml(directory: Path, programs: Path) -> Iterator[Party]:
    """Run BentoML with one worker."""
    port = free_port()
    env = {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(directory / "home")}
    command = [
        *(str(programs / "bentoml"), "serve", "bentoml_echo:Echo", "--working-dir", str(PROGRAMS)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with _running(command, directory / "log", env, port) as pid:
        yield _echoing("bentoml", pid, f"http://127.0.0.1:{port}/answer", separator=": ")


@contextmanager
def ray(directory: Path, programs: Path) -> Iterator[Party]:
    """Run Ray Serve with one replica."""
    port = free_port()
    command = [str(programs / "python"), str(PROGRAMS / "ray_echo.py"), str(port)]
    with _running(command, directory / "log", {"RAY_USAGE_STATS_ENABLED": "0"}, port) as pid:
        yield _echoing("ray", pid, f"http://127.0.0.1:{port}/")


def _echoing(name: str, pid: int, url: str, separator: str = ":") -> Party:
    answer = Call(url, {"text": TEXT}, f'"text"{separator}"{TEXT}"')
    return Party(name, answer, pids=(pid,))


#: By the names of their environments.
PEERS: dict[str, Callable[[Path, Path], AbstractContextManager[Party]]] = {
    "celery": celery,
    "litserve": litserve,
    "bentoml": bentoml,
    "ray": ray,
}


@contextmanager
def peer(name: str, directory: Path, environments: Path) -> Iterator[Party]:
    """Install a peer if it is not installed yet, and run it for the length of a block."""
    programs = environment(environments, name)
    directory.mkdir()
    with PEERS[name](directory, programs) as party:
        yield party


@contextmanager
def _running(
    command: list[str], log: Path, env: Mapping[str, str], port: int | None = None
) -> Iterator[int]:
    """Run a program for the length of a block; end it and the processes that it started."""
    process, children = start(command, log=log, env=env), list[psutil.Process]()
    try:
        if port is not None:

            def up() -> bool:
                if process.poll() is not None:
                    raise AssertionError(f"{command[0]} ended:\n{log.read_text()[-2000:]}")
                return listens(port)

            wait_until(up, START_SECONDS, f"{command[0]} listens")
        yield process.pid
    finally:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        stop(process)
        # LitServe's and Ray's processes outlive the one that started them.
        left = psutil.wait_procs(children, timeout=3)[1]
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left)
