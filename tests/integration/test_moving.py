"""Everything of an embedded lakeFS server moves to another server, and nothing twice."""

import hashlib
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedded.data_directory import DataDirectory
from embedded.lakefs_program import find_lakefs
from embedded.moving.move import Move, Report
from embedded.moving.repository import MOVED_COMMITTER, MOVED_FROM
from embedded.moving.server import Revision, Server
from embedded.stores import real_lakefs
from shared.cancellation import CancelToken
from shared.errors import ConflictError
from shared.lakefs.connection import connect
from shared.models import LakeFSLocation, manifest_digest
from shared.registry import ModelRegistry
from shared.registry.relocation import COMMIT_BEFORE_MOVE, Relocation
from shared.settings import LakeFSSettings, MLflowSettings
from tests.processes import free_port, running, wait_until
from tests.servers import lakefs_running

TAGS = {"inference_task": "text-generation", "engine": "transformers"}


class Quiet:
    """Counts what a move tells."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.commits: list[str] = []

    def on_bytes(self, size_bytes: int) -> None:
        self.sent_bytes += size_bytes

    def on_commit(self, _repository: str, message: str) -> None:
        self.commits.append(message)


class World:
    """A stack's stores: an embedded server with history, versions in MLflow, and a new server."""

    def __init__(
        self, source: LakeFSSettings, target: LakeFSSettings, mlflow: MLflowSettings, folder: Path
    ) -> None:
        self.settings = (source, target, mlflow)
        self.source, self.target = Server(source), Server(target)
        self.registry = ModelRegistry(mlflow)
        self.folder = folder
        #: Names of repositories and models, so that tests share a MLflow.
        self.mark = uuid.uuid4().hex[:8]
        self.locations: dict[tuple[str, str], LakeFSLocation] = {}

    def put(self, repo: str, branch: str, path: str, data: bytes, *, plain: bool = False) -> None:
        """Put a file on a branch; a plain one as other clients do, without its digest."""
        if plain:
            with closing(connect(self.settings[0])) as http:
                http.post(
                    f"/repositories/{repo}/branches/{branch}/objects",
                    params={"path": path},
                    content=data,
                    headers={"Content-Type": "application/octet-stream"},
                ).raise_for_status()
            return
        file = self.folder / uuid.uuid4().hex
        file.write_bytes(data)
        self.source.put(
            repo,
            branch,
            path,
            file,
            sha256=hashlib.sha256(data).hexdigest(),
            token=CancelToken(),
            on_bytes=lambda _: None,
        )

    def model(self, repo: str, branch: str, path: str, text: str) -> str:
        """Commit a model's files and return the commit."""
        self.put(repo, branch, f"{path}/config.json", b'{"model_type": "llama"}')
        self.put(repo, branch, f"{path}/model.safetensors", text.encode() * 1000)
        return self.source.commit_changes(
            repo, branch, f"Upload {text}", {"path": path, "job_id": text}
        )

    def register(self, name: str, repo: str, commit: str, path: str) -> None:
        """Register a version as a registration job does."""
        location = LakeFSLocation(repo, commit, path)
        tags = {
            **TAGS,
            "lakefs_repo": repo,
            "lakefs_commit": commit,
            "lakefs_path": path,
            "physical_path": location.uri,
            "lakefs_manifest": manifest_digest(self.source.files(repo, commit, path)),
        }
        version = self.registry.create_version(name, location, tags, None, uuid.uuid4().hex)
        self.locations[name, version.version] = location

    def move(self) -> tuple[Report, Quiet]:
        """Move once, to the end."""
        listener = Quiet()
        move = Move(*self.settings, scratch=self.folder, cancel=CancelToken())
        with closing(move):
            move.plan(listener)
            move.move_repositories(listener)
            move.point_versions()
        return move.report, listener

    def content(self, server: Server, repo: str, ref: str, path: str = "") -> dict[str, bytes]:
        """Read all files of a commit."""
        return {
            file.path: server.read(repo, ref, f"{path}/{file.path}".lstrip("/"), 0, 1 << 20)
            for file in server.files(repo, ref, path, missing_ok=True)
        }


@contextmanager
def real_lakefs_running(directory: Path, program: str) -> Iterator[LakeFSSettings]:
    """Run lakeFS itself as the stack does, for the length of a block."""
    data, port = DataDirectory(directory), free_port()
    service = real_lakefs(data, port, program)
    with running(service.command, port=port, log=directory / "lakefs.log", env=service.env):
        wait_until(service.component.probe.healthy, what="lakeFS")
        keys = data.credentials()
        yield LakeFSSettings.model_validate(
            {
                "endpoint": service.component.address,
                "access_key_id": keys.access_key_id,
                "secret_access_key": keys.secret_access_key,
            }
        )


#: Another embedded server, and lakeFS itself on a machine that has it.
TARGETS = [None, *filter(None, [find_lakefs()])]


@pytest.fixture(params=TARGETS, ids=["embedded", "real"][: len(TARGETS)])
def world(mlflow_server: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Three models with six versions, on a server whose repositories have a history."""
    mlflow = MLflowSettings.model_validate({"tracking_uri": mlflow_server})
    folders = [tmp_path / name for name in ("source", "target", "files")]
    for folder in folders:
        folder.mkdir()
    to = real_lakefs_running(folders[1], request.param) if request.param else None
    with lakefs_running(folders[0]) as source, to or lakefs_running(folders[1]) as target:
        world = World(source, target, mlflow, folders[2])
        build(world)
        yield world
        world.source.close()
        world.target.close()
        remove_versions(world)


def build(world: World) -> None:
    """Make history: merges, deletions, a branch that is gone, tags, odd names, files of others."""
    one, two = f"one-{world.mark}", f"two-{world.mark}"
    source = world.source
    source.ensure_repository(one)
    source.ensure_repository(two, "trunk")
    source.ensure_repository(f"empty-{world.mark}")
    chat, ears, eyes = (f"{name}-{world.mark}" for name in ("chat", "ears", "eyes"))

    world.register(chat, one, world.model(one, "main", "chat", "chat 1"), "chat")
    world.model(one, "main", "chat", "chat that nobody registered")
    source.delete_files(one, "main", ["chat/config.json"])
    world.put(one, "main", "chat/odd é #%+ &名.txt", b"odd")
    world.put(one, "main", "chat/plain.bin", b"plain" * 500, plain=True)
    source.commit_changes(one, "main", "Tidy up")
    world.register(chat, one, world.model(one, "main", "chat", "chat 3"), "chat")
    # As uploads do: a branch of a job, merged into its target, then deleted.
    source.ensure_branch(one, "side")
    exact = world.model(one, "side", "ears", "ears 1")
    world.model(one, "main", "other", "other")
    merged = source.merge(one, "side", "main", message="Merge ears", metadata={"job_id": "m"})
    source.delete_branch(one, "side")
    world.register(ears, one, exact, "ears")
    world.register(ears, one, merged, "ears")
    source.create_branch(one, "keep-this", exact, hidden=True)
    source.ensure_branch(one, "people")
    world.model(one, "people", "draft", "draft")
    source.create_tag(one, "v1.0", exact)
    source.ensure_branch(one, f"job-{uuid.uuid4()}")
    source.create_branch(one, f"keep-ears-v1-{exact[:12]}", exact)
    world.put(one, "people", "draft/uncommitted", b"not committed")

    world.register(eyes, two, world.model(two, "trunk", "eyes/v1", "eyes 1"), "eyes/v1")
    world.put(two, "trunk", "empty-file", b"")
    world.register(eyes, two, world.model(two, "trunk", "eyes/v2", "eyes 2"), "eyes/v2")


def remove_versions(world: World) -> None:
    """Leave MLflow to the next test: a move takes all versions that there are."""
    client = world.registry._client.mlflow
    for name in {name for name, _ in world.locations}:
        client.delete_registered_model(name)


def assert_moved(world: World) -> None:
    """Hold the new server and the registry against the old server."""
    for (name, number), before in world.locations.items():
        found = world.registry.resolve(name, number)
        assert found.location
        assert (found.location.repo, found.location.path) == (before.repo, before.path)
        assert found.location.commit != before.commit
        assert found.tags["physical_path"] == found.location.uri
        assert found.tags["lakefs_commit"] == found.location.commit
        assert found.tags[COMMIT_BEFORE_MOVE] == before.commit
        if manifest := found.location.manifest:
            stored = world.target.files(before.repo, found.location.commit, before.path)
            assert manifest == manifest_digest(stored)
        files = world.content(world.source, before.repo, before.commit, before.path)
        assert files
        for commit in (found.location.commit, before.commit):  # by its new and its old address
            for server in (world.target, world.source):
                assert world.content(server, before.repo, commit, before.path) == files
        old = world.source.revision(before.repo, before.commit)
        new = world.target.revision(before.repo, found.location.commit)
        assert (new.message, new.created) == (old.message, old.created)
        assert new.metadata.items() >= old.metadata.items()
        assert (new.metadata[MOVED_FROM], new.metadata[MOVED_COMMITTER]) == (old.id, old.committer)
    for repo, default in world.source.repositories().items():
        assert world.target.repositories()[repo] == default
        assert_same_references(world, repo)


def assert_same_references(world: World, repo: str) -> None:
    ours, theirs = (each.references(repo) for each in (world.source, world.target))
    made = ("job-", "keep-ears-v1-")
    kept = {name: head for name, head in ours.branches.items() if not name.startswith(made)}
    assert theirs.branches.keys() == kept.keys(), "none of the platform's, none of the move's own"
    assert theirs.hidden == ours.hidden
    for name, head in kept.items():
        assert world.content(world.source, repo, head) == world.content(
            world.target, repo, theirs.branches[name]
        )
        moved_from = [
            revision.metadata.get(MOVED_FROM)
            for revision in world.target.history(repo, [theirs.branches[name]]).values()
        ]
        assert len(moved_from) == len(set(moved_from)), "no commit was made twice"
        assert not world.target.has_uncommitted(repo, name)
    assert {name for name in theirs.tags if len(name) < 64} == {
        name for name in ours.tags if len(name) < 64
    }


def test_every_version_answers_the_same_from_the_new_server(world: World) -> None:
    report, told = world.move()

    assert_moved(world)
    assert report.versions == 6
    (problem,) = report.problems
    assert "'people'" in problem
    assert "uncommitted" in problem
    assert told.sent_bytes == report.size_bytes > 0, "as planned"
    assert len(told.commits) == sum(plan.commits for plan in report.plans)
    found = {each: world.registry.resolve(*each).location for each in world.locations}
    without = [each for each, location in found.items() if location and not location.manifest]
    assert without == [(f"chat-{world.mark}", "2")], "it has a file without a recorded digest"


def test_a_second_move_takes_only_what_is_new(world: World) -> None:
    world.move()

    report, told = world.move()
    assert (told.sent_bytes, told.commits, report.versions) == (0, [], 0)

    repo = f"one-{world.mark}"
    world.register(f"chat-{world.mark}", repo, world.model(repo, "main", "chat", "chat 4"), "chat")
    report, told = world.move()
    assert (told.commits, report.versions) == (["Upload chat 4"], 1)
    assert_moved(world)


def test_a_commit_that_is_registered_late_moves_too(world: World) -> None:
    world.move()
    repo, commit = f"one-{world.mark}", ""
    for revision in world.source.history(repo, ["main"]).values():
        if revision.message == "Upload chat that nobody registered":
            commit = revision.id
    world.register(f"chat-{world.mark}", repo, commit, "chat")

    _, told = world.move()

    assert told.commits == ["Upload chat that nobody registered"]
    assert_moved(world)


class Death(BaseException):
    """The process ends here, without a word."""


WRITES = [
    (Server, name)
    for name in (
        "commit_again",
        "copy",
        "create_branch",
        "create_tag",
        "delete_branch",
        "delete_files",
        "ensure_repository",
        "put",
    )
] + [(Relocation, "_set_tag")]


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, writes: int, *, done: bool) -> Iterator[None]:
    """End the process at a write: before it, or when it is done."""
    left = writes

    def deadly(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0 or (left == 0 and not done):
                raise Death
            answer = method(*args, **kwargs)
            if left == 0:
                raise Death
            return answer

        return call

    with monkeypatch.context() as patch:
        for owner, name in WRITES:
            patch.setattr(owner, name, deadly(getattr(owner, name)))
        yield


def test_a_move_that_is_killed_again_and_again_ends_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    draw = random.Random(7)
    deaths = 0
    while True:
        with dying(monkeypatch, draw.randint(4, 14), done=draw.random() < 0.5):
            try:
                world.move()
            except Death:
                deaths += 1
                assert deaths < 200
            else:
                break
    world.move()
    assert deaths > 5
    assert_moved(world)
    figure(f"move: killed {deaths} times, the same end")


def test_a_repository_of_others_is_not_touched(world: World) -> None:
    repo = f"one-{world.mark}"
    world.target.ensure_repository(repo)
    world.target.create_branch(repo, "theirs", "main")

    with pytest.raises(ConflictError, match="was not moved there"):
        world.move()

    assert world.target.references(repo).tags == {}


def test_a_branch_that_was_changed_on_the_new_server_is_left_as_it_is(world: World) -> None:
    world.move()
    repo = f"one-{world.mark}"
    theirs = world.target.commit_again(
        repo, "main", Revision("", (), "Theirs", "", 1_700_000_000, {}), {}
    )
    world.register(f"chat-{world.mark}", repo, world.model(repo, "main", "chat", "chat 4"), "chat")

    report, told = world.move()

    assert any("'main'" in problem and "changed" in problem for problem in report.problems)
    assert world.target.references(repo).branches["main"] == theirs
    assert told.commits == ["Upload chat 4"], "versions move all the same"
    found = world.registry.resolve(f"chat-{world.mark}", "3").location
    assert found
    assert world.content(world.target, repo, found.commit, "chat")
