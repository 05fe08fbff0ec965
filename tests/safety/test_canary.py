"""Secrets stay where they were set, whatever goes well or wrong."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from embedded.data_directory import DataDirectory
from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from embedded.ports import Ports
from embedded.redis import redis_command
from embedded.stack import Wishes, plan
from shared.cancellation import CancelToken
from shared.lakefs.store import LakeFSStore
from shared.settings import FlowerSettings, LakeFSSettings, RedisSettings, Settings
from tests.interceptor import proxying
from tests.ollama_server import Model, ollama_server
from tests.platform import Platform
from tests.processes import free_port, running
from tests.safety.canaries import Canary, Search
from tests.safety.echo import Echo, EchoOfLinks
from tests.servers import mlflow_running
from tests.tiny_models import tiny_llama

pytestmark = pytest.mark.long

MODEL = "tests/chat"
HUB, LINK, REDIS = Canary("HF_TOKEN"), Canary("presigned link"), Canary("Redis' password")
OLLAMA, ADMIN = Canary("OLLAMA_API_KEY"), Canary("API_ADMIN_KEY")
LAKEFS = Canary("LAKEFS_SECRET_ACCESS_KEY", user="platform")
MLFLOW = Canary("MLFLOW_TRACKING_PASSWORD", user="platform")
FLOWER = Canary("FLOWER_BASIC_AUTH", user="operator")
ADDRESS = Canary("password in an endpoint's URL", user="operator")
ALL = (HUB, LINK, REDIS, OLLAMA, ADMIN, LAKEFS, MLFLOW, FLOWER, ADDRESS)


class GuardedPlatform(Platform):
    """A platform whose Redis asks for a password."""

    def _command(self, name: str) -> list[str]:
        if name != "redis":
            return super()._command(name)
        config = self.directory / "redis.conf"
        config.write_text(f'requirepass "{REDIS.value}"\n')
        return redis_command(self.redis_port, self.directory, config=config)

    @property
    def redis_url(self) -> str:
        return f"redis://:{REDIS.value}@127.0.0.1:{self.redis_port}/0"

    def redis_client(self) -> "redis.Redis":
        return redis.Redis.from_url(
            self.redis_url, decode_responses=True, encoding_errors="backslashreplace"
        )


class Stand:
    """The platform with a secret in every setting, and every service behind an echo."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        publish(root / "hub", MODEL, tiny_llama(root / "model"))
        hub = stack.enter_context(HubProcess(root / "hub", token=HUB.value))
        self.mlflow_dir, self.lakefs_dir = root / "mlflow", root / "lakefs"
        self.mlflow_dir.mkdir()
        self.lakefs_dir.mkdir()
        mlflow = stack.enter_context(mlflow_running(self.mlflow_dir))
        lakefs = stack.enter_context(_lakefs(self.lakefs_dir))
        ollama = stack.enter_context(ollama_server(Model("echo:0.5b")))
        self.hub = stack.enter_context(proxying(Echo(hub.url)))
        self.mlflow = stack.enter_context(proxying(Echo(mlflow)))
        self.lakefs = stack.enter_context(proxying(EchoOfLinks(lakefs, LINK.value)))
        self.ollama = stack.enter_context(proxying(Echo(ollama.url)))
        hub.url = self.hub.url
        self.store = LakeFSSettings.model_validate(
            {
                "endpoint": self.lakefs.url,
                "access_key_id": LAKEFS.user,
                "secret_access_key": LAKEFS.value,
            }
        )
        self.platform = _platform(root / "platform", self, hub)
        #: What the front has answered.
        self.answers: list[str] = []
        self.platform.http.event_hooks = {"response": [self._keep]}
        stack.enter_context(self.platform)
        self.flower = stack.enter_context(_flower(root, self.platform))

    def _keep(self, answer: httpx.Response) -> None:
        answer.read()
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.answers.append(f"{head}\n{answer.text}")

    def try_all(self) -> None:
        """Make every kind of job, and every call that asks a service, however it goes."""
        http = self.platform.http
        jobs = [
            ("/models/download", {"model_name": MODEL}),
            ("/models/download", {"model_source": "ollama", "model_name": "echo:0.5b"}),
            (
                "/models/upload_to_lakefs",
                {"repo_name": "chat", "local_model_name": "tests_chat", "branch": "other"},
            ),
            (
                "/models/register_from_lakefs",
                {
                    "registered_name": "other",
                    "task": "text-generation",
                    "lakefs_repo": "chat",
                    "commit_id": "0" * 64,
                },
            ),
            ("/models/register_ollama", {"local_model_name": "echo:0.5b"}),
            (
                "/inference/infer",
                {
                    "task": "text-generation",
                    "model_name": "chat",
                    "data": {"inputs": "Hi"},
                    "options": {"max_new_tokens": 2},
                    "version": "1",
                },
            ),
        ]
        submitted = [http.post(call, json=body).json() for call, body in jobs]
        for path in (
            "/models/lakefs_repos",
            "/models/registered_in_mlflow",
            "/models/registered_in_mlflow/chat",
            "/models/stats",
            "/models/health",
            "/models/local?model_source=ollama",
            "/inference/health",
            "/inference/stats",
            "/metrics",
            "/health/ready",
        ):
            http.get(path)
        # The front itself refuses some while a service is not well.
        for job_id in (each["job_id"] for each in submitted if "job_id" in each):
            job = http.get(f"/jobs/{job_id}", params={"wait": 60}).json()
            assert job["state"] in {"succeeded", "failed"}, job
            http.get(f"/jobs/{job_id}/events")

    def search(self) -> Search:
        """Look everywhere."""
        search = Search(ALL)
        for number, answer in enumerate(self.answers):
            search.look(f"answer {number}", answer)
        search.look_at_files("log", self.root, "**/*.log")
        search.look_at_files("append-only file", self.platform.directory, "**/*.aof")
        search.look_at_files("Flower's state", self.root / "flower")
        with closing(self.platform.redis_client()) as client:
            search.look_at_redis(client)
        for path in _FLOWER_PAGES:
            page = self.flower.get(path)
            assert page.status_code == 200, (path, page.status_code)
            search.look(f"Flower {path}", page.content)
        search.look_at_sqlite("MLflow", self.mlflow_dir / "mlflow.db")
        search.look_at_sqlite("lakeFS", self.lakefs_dir / "data/catalog.sqlite3")
        search.look_at_files("staging", self.platform.staging)
        search.look_at_files("snapshot", self.platform.directory / "snapshots")
        search.look_at_command_lines()
        return search


_FLOWER_PAGES = (
    "/tasks",
    "/workers",
    "/broker",
    "/api/tasks",
    "/api/workers?refresh=1",
    "/api/queues/length",
    "/metrics",
)


@contextmanager
def _lakefs(directory: Path) -> Iterator[str]:
    port = free_port()
    command = [
        *(sys.executable, "-m", "embedded.lakefs", "--port", str(port), "--presign"),
        *("--data", str(directory / "data")),
    ]
    keys = {"LAKEFS_ACCESS_KEY_ID": LAKEFS.user, "LAKEFS_SECRET_ACCESS_KEY": LAKEFS.value}
    with running(command, port=port, log=directory / "lakefs.log", env=keys):
        yield f"http://127.0.0.1:{port}"


def _platform(directory: Path, stand: Stand, hub: HubProcess) -> GuardedPlatform:
    directory.mkdir()
    platform = GuardedPlatform(
        directory,
        stand.mlflow.url,
        stand.store,
        hub,
        HF_TOKEN=HUB.value,
        OLLAMA_HOST=stand.ollama.url,
        OLLAMA_API_KEY=OLLAMA.value,
        MLFLOW_TRACKING_USERNAME=MLFLOW.user,
        MLFLOW_TRACKING_PASSWORD=MLFLOW.value,
        API_ADMIN_KEY=ADMIN.value,
        LEDGER_MAX_ATTEMPTS="2",
        LEDGER_BACKOFF_SECONDS="0.1",
        LEDGER_OUTAGE_BUDGET_SECONDS="1",
        MLFLOW_RESOLUTION_CACHE_SECONDS="0",
    )
    platform.env["REDIS_URL"] = platform.redis_url
    platform.http.headers["Authorization"] = f"Bearer {ADMIN.value}"
    return platform


@contextmanager
def _flower(root: Path, platform: GuardedPlatform) -> Iterator[httpx.Client]:
    """Run Flower as the stack does."""
    settings = Settings(
        redis=RedisSettings.model_validate({"url": platform.redis_url}),
        flower=FlowerSettings.model_validate({"basic_auth": f"{FLOWER.user}:{FLOWER.value}"}),
    )
    stack = plan(settings, DataDirectory(root), Wishes(ports=Ports(any_free=True)))
    service = next(service for service in stack.services if service.name == "flower")
    url = httpx.URL(service.component.address)
    assert url.port
    with (
        running(service.command, port=url.port, log=root / "flower.log", env=service.env),
        httpx.Client(base_url=url, auth=(FLOWER.user, FLOWER.value), timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path_factory.mktemp("canary"), stack)


def _serve(platform: Platform) -> dict[str, Any]:
    """Bring the model into production, and ask it."""
    platform.done("/models/download", model_name=MODEL)
    upload = platform.done(
        "/models/upload_to_lakefs", repo_name="chat", local_model_name="tests_chat"
    )
    platform.done(
        "/models/register_from_lakefs",
        registered_name="chat",
        task="text-generation",
        lakefs_repo="chat",
        commit_id=upload["commit_id"],
        path=upload["path"],
        stage="production",
    )
    platform.done(
        "/inference/infer", task="text-generation", model_name="chat", data={"inputs": "Hi"}
    )
    return upload


@pytest.mark.timeout(900)
def test_no_secret_appears_anywhere(stand: Stand, figure: Callable[[str], None]) -> None:
    _serve(stand.platform)
    echoes = (stand.hub, stand.mlflow, stand.lakefs, stand.ollama)
    for status in (401, 500, 400):
        for echo in echoes:
            echo.fail(status)
        stand.try_all()
    for echo in echoes:
        assert echo.echoed >= 3, "an echo that nobody heard proves nothing"
        echo.fail(0)
    _fail_inside_transfers(stand)
    _restart_with_dead_endpoints(stand)
    stand.try_all()

    search = stand.search()
    figure(
        f"canary secrets: {len(search.found)} appearances of {len(ALL)} in {search.places} places"
        f" ({search.bytes / 2**20:.1f} MiB)"
    )
    assert search.found == []

    with _planted(stand):
        found = stand.search().found
    assert {place.split()[0] for place, _ in found} == {
        *("answer", "log", "append-only", "redis", "process", "MLflow", "lakeFS", "staging"),
        "Flower's",
    }, found
    assert {name for _, name in found} == {canary.name for canary in ALL}
    assert len([place for place, _ in found if place.startswith("redis")]) == 6


def _fail_inside_transfers(stand: Stand) -> None:
    """Let the files' own calls fail, which listings that fail never reach."""
    http = stand.platform.http
    stand.hub.fail(401, "GET .*/resolve/")
    http.post("/models/download", params={"wait": 60}, json={"model_name": MODEL})
    http.post(
        "/models/download",
        params={"wait": 60},
        json={"model_name": MODEL, "allow_patterns": ["config.json"]},
    )
    stand.hub.fail(0)
    stand.lakefs.fail(401, "^PUT ")
    (stand.platform.staging / "by-hand").mkdir()
    (stand.platform.staging / "by-hand/config.json").write_text("{}")
    failed = http.post(
        "/models/upload_to_lakefs",
        params={"wait": 60},
        json={"repo_name": "other", "local_model_name": "by-hand"},
    )
    assert failed.status_code == 503, failed.text
    stand.lakefs.fail(0)


def _restart_with_dead_endpoints(stand: Stand) -> None:
    """Start the platform anew with addresses that nobody listens on, each with a password."""
    platform = stand.platform
    platform.stop("api", "cpu", "gpu")
    dead = f"http://{ADDRESS.user}:{ADDRESS.value}@127.0.0.1:{free_port()}"
    platform.env |= dict.fromkeys(
        ("HF_ENDPOINT", "LAKEFS_ENDPOINT", "MLFLOW_TRACKING_URI", "OLLAMA_HOST"), dead
    )
    platform.start("api", "cpu", "gpu")


@contextmanager
def _planted(stand: Stand) -> Iterator[None]:
    """Put a secret in every place that is searched: the search finds what is there."""
    stand.answers.append(HUB.forms[1].decode())
    (stand.root / "planted.log").write_text(f"Basic {LAKEFS.forms[2].decode()}")
    (stand.platform.staging / "planted").write_text(HUB.value)
    (stand.root / "flower/planted").write_text(FLOWER.value)
    with closing(stand.platform.redis_client()) as client:
        client.set("planted:string", LINK.value)
        client.hset("planted:hash", "field", REDIS.value)
        client.rpush("planted:list", OLLAMA.value)
        client.sadd("planted:set", ADMIN.value)
        client.zadd("planted:zset", {FLOWER.value: 1})
        client.xadd("planted:stream", {"field": ADDRESS.value})
    file = stand.root / "planted.log"
    with closing(LakeFSStore(stand.store)) as store:
        store.put(
            *("chat", "main", "planted", file),
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            token=CancelToken(),
            on_bytes=lambda _: None,
        )
        store.commit_changes("chat", "main", "Plant", {"secret": LAKEFS.value})
    tag = {"name": "chat", "key": "secret", "value": MLFLOW.value}
    url = f"{stand.mlflow.url}/api/2.0/mlflow/registered-models/set-tag"
    httpx.post(url, json=tag).raise_for_status()
    command = [sys.executable, "-c", "input()", MLFLOW.value]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield
        process.communicate(b"\n")
