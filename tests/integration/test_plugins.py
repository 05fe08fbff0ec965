"""The package of docs/extending.md, installed as anybody's would be, serves a task of its own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from shared.cancellation import CancelToken
from shared.errors import NotFoundError
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.ledger import Presence, WorkerInfo
from shared.registry import ModelRegistry
from shared.settings import (
    LakeFSSettings,
    LedgerSettings,
    MLflowSettings,
    RedisSettings,
    Settings,
)
from tests.integration.conftest import NewRun
from tests.processes import free_port
from workers.lifecycle.register import Register

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "lifecycle-shout"
VOICE = {"ending": "!"}

ASK = {"task": "shouting", "engine": "shout", "model_name": "loud", "data": {"text": "hi"}}
REGISTER = {
    "registered_name": "loud",
    "task": "shouting",
    "engine": "shout",
    "lakefs_repo": "voices",
    "commit_id": "7f3c1d9a5b8e4f60",
}

Run = Callable[..., Any]

#: A manager on a store in a directory; what follows it asks it something.
MANAGER = """
import json
import sys
from pathlib import Path

from shared.errors import LifecycleError
from shared.settings import Settings
from tests.model_stores import DirectoryStore, StaticRegistry
from workers.inference import model_registry
from workers.inference.cache import ModelCache
from workers.inference.executor import ModelExecutor
from workers.inference.manager import InferenceManager
from workers.inference.registry import TaskRouter
from workers.inference.snapshot_disk import SnapshotDisk
from workers.inference.snapshots import Snapshots

root = Path(sys.argv[1])
store, registry = DirectoryStore(root / "store"), StaticRegistry()
location = store.location("c0ffee")
store.directory(location).mkdir(parents=True)
(store.directory(location) / "voice.json").write_text('{"ending": "!"}')
registry.add("loud", location, task="shouting", engine="shout")
router, cache = TaskRouter(model_registry, Settings()), ModelCache(10_000, 10)
snapshots = Snapshots(store, SnapshotDisk(root / "snapshots"))
manager = InferenceManager(registry, router, ModelExecutor(router, cache, snapshots), cache)
shout = lambda **options: manager.infer("shouting", "shout", "loud", {"text": "hi all"}, options)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the example is installed in."""
    source = tmp_path_factory.mktemp("source") / EXAMPLE.name
    shutil.copytree(EXAMPLE, source)  # pip builds where the source is
    target = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)),
            str(source),
        ],
        check=True,
    )
    return target


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """Run a script where a directory is on the path, and return what it prints as JSON."""

    def run(script: str, path: Path = installed, **env: str) -> Any:
        paths = os.pathsep.join([str(path), str(ROOT)])
        storage = {
            "STORAGE_SNAPSHOTS_DIR": str(tmp_path / "snapshots"),
            "STORAGE_RESERVE_BYTES": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={
                **os.environ,
                **storage,
                **env,
                "PYTHONPATH": paths,
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdout=subprocess.PIPE,
            check=True,
            cwd=tmp_path,
            timeout=100,
        )
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_an_installed_package_serves_a_new_task_on_a_new_engine(run: Run) -> None:
    result, pieces, handlers = run(
        MANAGER
        + """
pieces = []
result = manager.infer(
    "shouting", "shout", "loud", {"text": "hi all"}, {"times": 3}, on_token=pieces.append
)
handlers = manager.get_stats()["handlers"]
print(json.dumps([result, pieces, handlers]))
"""
    )
    assert result["shout"] == "HI ALL!!!"
    assert pieces == ["HI", " ALL"]
    metadata = result["metadata"]
    assert (metadata["engine"], metadata["commit"], metadata["words"]) == ("shout", "c0ffee", 2)
    assert "shouting:shout" in handlers


def test_the_plugins_handler_judges_its_own_options_and_input(run: Run) -> None:
    assert run(
        MANAGER
        + """
fields = []
for ask in (
    lambda: shout(times=9),
    lambda: shout(pitch=1),
    lambda: manager.infer("shouting", "shout", "loud", {"words": "hi"}),
    lambda: manager.infer("shouting", "transformers", "loud", {"text": "hi"}),
    lambda: manager.infer("humming", "shout", "loud", {"text": "hi"}),
):
    try:
        ask()
    except LifecycleError as error:
        fields.append(error.field)
print(json.dumps(fields))
"""
    ) == ["options.times", "options.pitch", "data.text", "task", "task"]


def test_a_handler_registered_by_hand_takes_over(run: Run) -> None:
    assert run(
        MANAGER
        + """
from lifecycle_shout import ShoutHandler

class WhisperHandler(ShoutHandler):
    def postprocess(self, model, call, inputs, output):
        return {"shout": inputs.lower()}

before = shout()["shout"]
model_registry.register_handler_manually("shouting", "shout", WhisperHandler)
print(json.dumps([before, shout()["shout"]]))
"""
    ) == ["HI ALL!", "hi all"]


@pytest.mark.timeout(300)  # starts MLflow, then imports torch in a process of its own
def test_the_guides_script_serves_in_process_from_the_real_stores(
    run: Run,
    new_run: NewRun,
    store: LakeFSStore,
    repo: str,
    tmp_path: Path,
    lakefs_server: LakeFSSettings,
    mlflow_server: str,
) -> None:
    commit = _commit_voice(store, repo, tmp_path)
    register = Register(ModelRegistry(MLflowSettings(tracking_uri=mlflow_server)), store)
    request = REGISTER | {"lakefs_repo": repo, "commit_id": commit, "stage": "production"}
    version = register(new_run(JobKind.REGISTER, request).context)
    assert (version["tags"]["inference_task"], version["tags"]["engine"]) == ("shouting", "shout")
    assert version["tags"]["lakefs_path"] == "voice", "the directory that the commit brought"
    assert "model_params" not in version["tags"], "nobody can count them"
    guide = (ROOT / "docs" / "extending.md").read_text()
    script = guide.split("```python\n")[1].split("```")[0]
    result = run(
        f"{script}\nimport json; print(json.dumps(result))",
        EXAMPLE,  # its source, which no entry point names
        MLFLOW_TRACKING_URI=mlflow_server,
        LAKEFS_ENDPOINT=lakefs_server.endpoint,
        LAKEFS_ACCESS_KEY_ID=lakefs_server.access_key_id,
        LAKEFS_SECRET_ACCESS_KEY=lakefs_server.secret_access_key.get_secret_value(),
    )
    assert result["shout"] == "HELLO!!!"
    assert result["metadata"]["commit"] == commit
    with pytest.raises(NotFoundError):
        register(new_run(JobKind.REGISTER, request | {"commit_id": "0" * 64}).context)


def _commit_voice(store: LakeFSStore, repo: str, directory: Path) -> str:
    """Commit a voice as an upload does, and return the commit's id."""
    file = directory / "voice.json"
    file.write_text(json.dumps(VOICE))
    store.put(
        repo,
        "main",
        "voice/voice.json",
        file,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        token=CancelToken(),
        on_bytes=lambda _: None,
    )
    return store.commit_changes(repo, "main", "a voice", {"path": "voice"})


@pytest.fixture
def client(redis_settings: RedisSettings, ledger_settings: LedgerSettings) -> Iterator[TestClient]:
    """A front whose MLflow is away, so that it takes what workers announce for granted."""
    nobody = MLflowSettings(tracking_uri=f"http://127.0.0.1:{free_port()}")
    settings = Settings(redis=redis_settings, ledger=ledger_settings, mlflow=nobody)
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def announce(redis_client: Any, ledger_settings: LedgerSettings) -> Callable[..., None]:
    """Announce a GPU worker with these handlers."""
    presence = Presence(redis_client, ledger_settings.model_copy(update={"lease_seconds": 60}))

    def announce(*handlers: str) -> None:
        status = {"in_flight": 0, "inference": {"stats": {"handlers": list(handlers)}}}
        presence.announce(WorkerInfo("gpu@a", "gpu", "a", status))

    return announce


@pytest.mark.parametrize(
    ("call", "body"), [("/inference/infer", ASK), ("/models/register_from_lakefs", REGISTER)]
)
def test_the_front_takes_what_a_worker_announces_and_nothing_else(
    client: TestClient, announce: Callable[..., None], call: str, body: dict[str, Any]
) -> None:
    def refused(**changes: str) -> str:
        response = client.post(call, json=body | changes)
        assert response.status_code == 422, response.text
        return str(response.json()["errors"][0]["field"])

    assert refused() == "task", "no worker has announced it"
    announce("text-generation:transformers")
    assert refused() == "task", "the worker has not announced it"
    announce("text-generation:transformers", "shouting:shout:Tenor", "humming:hum", "odd")
    response = client.post(call, json=body)
    assert response.status_code == 202, response.text
    assert (response.json()["request"]["task"], response.json()["request"]["engine"]) == (
        "shouting",
        "shout",
    )
    assert refused(task="telepathy") == "task"
    assert refused(engine="steam") == "engine"
    assert refused(engine="hum") == "task", "the engine is there, but does not shout"
    assert refused(task="Shouting!") == "task"
    assert refused(engine="../shout") == "engine"
    announce("text-generation:transformers")
    assert client.post(call, json=body).status_code == 202, "its worker may come back"


def test_the_front_leaves_a_plugins_options_to_its_handler(
    client: TestClient, announce: Callable[..., None]
) -> None:
    announce("shouting:shout")
    response = client.post("/inference/infer", json=ASK | {"options": {"times": 3}})
    assert response.status_code == 202
    assert response.json()["request"]["options"] == {"times": 3}
