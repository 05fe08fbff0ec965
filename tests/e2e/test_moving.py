"""`lifecycle lakefs move`, as an operator runs it."""

import hashlib
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from embedded.moving.server import Server
from embedded.service import Service
from embedded.stores import embedded_lakefs, own_lakefs, real_lakefs
from shared.cancellation import CancelToken
from shared.models import LakeFSLocation
from shared.registry import ModelRegistry
from shared.settings import LakeFSSettings, MLflowSettings
from tests.e2e.command_line import START_SECONDS, CommandLine
from tests.lakefs_program import write_lakefs
from tests.processes import free_port, running, wait_until
from tests.servers import lakefs_running

pytestmark = pytest.mark.timeout(600)
REPOSITORY, VERSIONS, FILES = "models", 4, 20


@contextmanager
def started(service: Service, folder: Path) -> Iterator[str]:
    """Run a service of the stack for the length of a block; yields its address."""
    address = service.component.address
    port = int(address.rpartition(":")[2])
    log = folder / f"{service.name}.log"
    with running(service.command, port=port, log=log, env=service.env):
        yield address


class Models:
    """A command line on a data directory with models in the embedded lakeFS."""

    def __init__(self, folder: Path, mlflow: str) -> None:
        self.command = CommandLine(folder)
        self.command.settings = {"HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": mlflow}
        self.registry = ModelRegistry(MLflowSettings.model_validate({"tracking_uri": mlflow}))
        #: Of this test: MLflow is that of the session.
        self.name = f"chat-{uuid.uuid4().hex[:8]}"

    def assert_answer(self, store: Server) -> None:
        """Read every version where the registry says that it is, and where it said so before."""
        for number in range(VERSIONS):
            version = self.registry.resolve(self.name, str(number + 1))
            assert version.location
            for ref in (version.location.commit, version.tags["lakefs_commit_before_move"]):
                for index in range(FILES):
                    data = store.read(REPOSITORY, ref, f"chat/{index}", 0, 1 << 16)
                    assert data == text(number, index)


@pytest.fixture
def models(tmp_path: Path, mlflow_server: str) -> Models:
    """Versions of one model, each in a commit of its own."""
    models = Models(tmp_path, mlflow_server)
    data = models.command.data
    data.path.mkdir()
    with (
        started(embedded_lakefs(data, free_port()), tmp_path) as address,
        closing(Server(own_lakefs(data, LakeFSSettings(), address))) as store,
    ):
        store.ensure_repository(REPOSITORY)
        for number in range(VERSIONS):
            register(models, commit(store, tmp_path, number))
    return models


def commit(store: Server, folder: Path, number: int) -> LakeFSLocation:
    for index in range(FILES):
        file = folder / "file"
        file.write_bytes(text(number, index))
        store.put(
            REPOSITORY,
            "main",
            f"chat/{index}",
            file,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            token=CancelToken(),
            on_bytes=lambda _: None,
        )
    commit_id = store.commit_changes(REPOSITORY, "main", f"Upload {number}")
    return LakeFSLocation(REPOSITORY, commit_id, "chat")


def register(models: Models, location: LakeFSLocation) -> None:
    tags = {
        "inference_task": "text-generation",
        "engine": "transformers",
        "lakefs_repo": location.repo,
        "lakefs_commit": location.commit,
        "lakefs_path": location.path,
    }
    models.registry.create_version(models.name, location, tags, None, location.commit)


def text(number: int, index: int) -> bytes:
    return f"version {number} file {index}".encode() * 100


def test_a_move_that_is_killed_is_repeated_to_the_end(models: Models, tmp_path: Path) -> None:
    command = models.command
    (tmp_path / "new").mkdir()
    with lakefs_running(tmp_path / "new") as target, closing(Server(target)) as store:
        to = ("lakefs", "move", "--to", target.endpoint)
        missing = command.run(*to)
        assert missing.returncode == 1
        assert "LAKEFS_ACCESS_KEY_ID" in missing.stdout
        command.settings |= {
            "LAKEFS_ACCESS_KEY_ID": target.access_key_id,
            "LAKEFS_SECRET_ACCESS_KEY": target.secret_access_key.get_secret_value(),
        }

        dry = command.run(*to, "--dry-run", timeout_seconds=START_SECONDS)
        assert dry.returncode == 0, dry.stdout + dry.stderr
        assert f"{VERSIONS} commits with {VERSIONS * FILES} files" in dry.stdout
        assert store.repositories() == {}

        with command.running(*to) as process:

            def under_way() -> bool:
                assert process.poll() is None, command.output
                if REPOSITORY not in store.repositories():
                    return False
                return len(store.references(REPOSITORY).tags) > 1  # the first commit is empty

            wait_until(under_way, START_SECONDS, what="a commit has moved")
            os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not command.processes(), what="nothing is left of it")
        assert len(store.references(REPOSITORY).tags) <= VERSIONS, "it was in the middle"
        (command.data.folder("moving/files/left") / "0").write_bytes(b"on its way")

        done = command.run(*to, timeout_seconds=START_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"LAKEFS_ENDPOINT={target.endpoint}" in done.stdout
        assert not list(command.data.folder("moving/files").iterdir())
        again = command.run(*to, timeout_seconds=START_SECONDS)
        assert f"Repository {REPOSITORY}: 0 commits" in again.stdout
        assert "new commits: 0" in again.stdout

        models.assert_answer(store)
        log = store.history(REPOSITORY, ["main"])
        assert len(log) == VERSIONS + 1, "no commit twice"


def test_a_move_to_a_lakefs_of_the_stack_itself(models: Models, tmp_path: Path) -> None:
    command = models.command
    nowhere = command.run("lakefs", "move")
    assert nowhere.returncode == 1
    assert "lifecycle lakefs install" in nowhere.stdout
    program = write_lakefs(tmp_path / "home" / ".lakefs" / "bin")

    done = command.run("lakefs", "move", timeout_seconds=START_SECONDS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert not (command.data.path / "lakefs").exists()
    assert len(list(command.data.path.glob("lakefs-moved-*"))) == 1
    service = real_lakefs(command.data, free_port(), str(program))
    with (
        started(service, tmp_path) as address,
        closing(Server(own_lakefs(command.data, LakeFSSettings(), address))) as store,
    ):
        models.assert_answer(store)
    again = command.run("lakefs", "move")
    assert again.returncode == 1
    assert "no data of an embedded lakeFS" in again.stdout
