"""An upload's commit holds exactly its model, whoever else writes to the branch meanwhile."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from shared.cancellation import CancelToken
from shared.errors import CancelledError, UnavailableError
from shared.interruptible import interrupted_by
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings, StorageSettings
from shared.staging import StagingArea
from tests.integration.conftest import NewRun, Run
from tests.lakefs_faults import (
    CONTENDED_COMMIT,
    CONTENDED_MERGE,
    Answer,
    Call,
    FaultyLakeFS,
    faulty_lakefs,
    merge_that_drops,
)
from workers.lifecycle.upload import Upload

MODEL, SIBLING = "org_model", "a_sibling"
CONTENTS = [b"", b"shared by all", *(bytes([number]) * 50 for number in range(3))]
#: Moves of one schedule; a branch that never rests lets no upload end.
MOST_MOVES = 6
CONTENTION = {"merge": CONTENDED_MERGE, "commit": CONTENDED_COMMIT}

Files = Mapping[str, bytes]


@pytest.fixture(scope="module")
def lakefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyLakeFS]:
    """A server whose merge has lakeFS' defect, and where faults can be put around each call."""
    with merge_that_drops(), faulty_lakefs(tmp_path_factory.mktemp("lakefs")) as running:
        yield running


class Host:
    """A host with a staging area of its own."""

    def __init__(self, folder: Path, settings: LakeFSSettings, new_run: NewRun) -> None:
        folder.mkdir(parents=True)
        self._staging = StagingArea(StorageSettings(staging_dir=folder, reserve_bytes=0))
        self.store = LakeFSStore(settings)
        self._upload = Upload(self.store, self._staging, settings)
        self._new_run = new_run

    def upload(self, repo: str, files: Files) -> str:
        """Stage a model and upload it; return the commit that the job reports."""
        run = self.staged(repo, files)
        while True:
            try:
                return self.upload_of(run)
            except UnavailableError:  # the ledger runs the job again
                job = run.context.job
                run = self._new_run(JobKind.UPLOAD, job.request, job_id=job.id)

    def upload_once(self, repo: str, files: Files) -> str:
        """Do the same with one attempt."""
        return self.upload_of(self.staged(repo, files))

    def upload_of(self, run: Run) -> str:
        """Do one run; return the commit that the job reports."""
        return str(self._upload(run.context)["commit_id"])

    def staged(self, repo: str, files: Files) -> Run:
        """Stage a model and begin a run of its upload."""
        root = self._staging.root / MODEL
        root.mkdir(exist_ok=True)
        for path in root.iterdir():
            path.unlink()
        for name, content in files.items():
            (root / name).write_bytes(content)
        request = {"repo_name": repo, "local_model_name": MODEL}
        return self._new_run(JobKind.UPLOAD, request)


def a_model(draw: random.Random) -> dict[str, bytes]:
    names = draw.sample([f"f{number:02d}" for number in range(8)], draw.randint(1, 6))
    return {name: draw.choice(CONTENTS) for name in names}


class Writer:
    """Changes the target as people and other programs do: by commits and merges of their own."""

    def __init__(self, store: LakeFSStore, folder: Path, repo: str, draw: random.Random) -> None:
        self._store = store
        self._folder = folder
        self._repo = repo
        self._draw = draw

    def write(self) -> None:
        """Make one change."""
        self._draw.choice([self.add, self.replace, self.delete, self.merge, self.drop_sibling])()

    def add(self) -> None:
        """Commit a file that the model may not have."""
        self._put("main", f"{MODEL}/f{self._draw.randrange(12):02d}")
        self._commit("main")

    def replace(self) -> None:
        """Commit other content for one of the files that are there."""
        files = self._store.files(self._repo, "main", MODEL, missing_ok=True)
        if files:
            self._put("main", f"{MODEL}/{self._draw.choice(files).path}")
            self._commit("main")

    def delete(self) -> None:
        """Delete some of the files that are there."""
        self._delete(MODEL, self._draw.random())

    def merge(self) -> None:
        """Merge a branch that changes some of the model's files."""
        branch = f"people-{self._draw.getrandbits(64):x}"
        self._store.ensure_branch(self._repo, branch, source="main")
        for _ in range(self._draw.randint(1, 3)):
            self._put(branch, f"{MODEL}/f{self._draw.randrange(12):02d}")
        if self._commit(branch):
            self._store.merge(self._repo, branch, "main", message="from a person")

    def drop_sibling(self) -> None:
        """Delete a model that has files with the same names and content."""
        self._delete(SIBLING, 1)

    def put_sibling(self, files: Files) -> None:
        """Commit the model that ``drop_sibling`` deletes."""
        for name, content in files.items():
            self._put("main", f"{SIBLING}/{name}", content)
        self._commit("main")

    def delete_others_than(self, files: Files) -> None:
        """Delete what is there beside the files of a model."""
        there = self._store.files(self._repo, "main", MODEL, missing_ok=True)
        self._delete_paths([f"{MODEL}/{file.path}" for file in there if file.path not in files])

    def _delete(self, directory: str, share: float) -> None:
        files = self._store.files(self._repo, "main", directory, missing_ok=True)
        chosen = [file for file in files if self._draw.random() < share]
        self._delete_paths([f"{directory}/{file.path}" for file in chosen])

    def _delete_paths(self, paths: list[str]) -> None:
        if paths:
            self._store.delete_files(self._repo, "main", paths)
            self._commit("main")

    def _put(self, branch: str, path: str, content: bytes | None = None) -> None:
        source = self._folder / "source"
        # Content of its own: a file that is staged as it is committed makes a branch dirty.
        source.write_bytes(self._draw.randbytes(8) if content is None else content)
        self._store.put(
            self._repo,
            branch,
            path,
            source,
            sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
            token=CancelToken(),
            on_bytes=lambda _: None,
        )

    def _commit(self, branch: str) -> bool:
        changed = self._store.has_uncommitted(self._repo, branch)
        if changed:
            self._store.commit_changes(self._repo, branch, "by a person")
        return changed


def held(store: LakeFSStore, repo: str, ref: str) -> dict[str, tuple[int, str | None]]:
    files = store.files(repo, ref, MODEL, missing_ok=True)
    return {file.path: (file.size_bytes, file.sha256) for file in files}


def wanted(files: Files) -> dict[str, tuple[int, str | None]]:
    return {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
    }


class Races:
    """Uploads under random schedules of other writers."""

    def __init__(self, lakefs: FaultyLakeFS, folder: Path, new_run: NewRun) -> None:
        self._lakefs = lakefs
        self.folder = folder
        self.host = Host(folder / "host", lakefs.settings, new_run)
        self._other = Host(folder / "other", lakefs.direct, new_run)
        self.store = self._other.store

    def close(self) -> None:
        """Give the connections back."""
        self.host.store.close()
        self._other.store.close()

    def run(self, repo: str, seed: int, *, only_uploads: bool) -> None:
        """Run one schedule and compare every commit that was reported with its model."""
        draw = random.Random(seed)
        lock = threading.Lock()
        chance = draw.choice([0.1, 0.3, 1.0])
        model, moves = a_model(draw), draw.randint(1, MOST_MOVES)
        writer = Writer(self.store, self.folder, repo, draw)
        writer.put_sibling(model)
        uploaded: list[tuple[str, Files]] = [("main", model)]

        def upload() -> None:
            files = a_model(draw)
            uploaded.append((self._other.upload(repo, files), files))

        def move(call: Call) -> Answer | None:
            nonlocal moves
            with lock:  # files are sent by several threads
                if moves and draw.random() < chance:
                    moves -= 1
                    if not only_uploads and draw.random() < 0.2:
                        return CONTENTION.get(call.name)
                    (upload if only_uploads or draw.random() < 0.3 else writer.write)()
            return None

        self._lakefs.before = move
        try:
            uploaded[0] = (self.host.upload(repo, model), model)
        finally:
            self._lakefs.before = None
        for commit, files in uploaded:
            assert held(self.store, repo, commit) == wanted(files), f"seed {seed}"
        if only_uploads:
            head = held(self.store, repo, "main")
            assert head in [wanted(files) for _, files in uploaded], f"seed {seed}"


@pytest.fixture
def races(lakefs: FaultyLakeFS, tmp_path: Path, new_run: NewRun) -> Iterator[Races]:
    with closing(Races(lakefs, tmp_path, new_run)) as races:
        yield races


@pytest.mark.parametrize("held", ["diff", "merge"])
def test_a_cancel_is_heard_while_lakefs_hangs_before_or_in_the_merge(
    lakefs: FaultyLakeFS, tmp_path: Path, new_run: NewRun, held: str
) -> None:
    host = Host(tmp_path / "host", lakefs.settings, new_run)
    repo = host.store.ensure_repository(f"held-{held}").name
    hangs, thaw, ended = threading.Event(), threading.Event(), threading.Event()
    run = host.staged(repo, {"config.json": b"{}"})

    def hang(call: Call) -> Answer | None:
        if call.name == held:
            hangs.set()
            thaw.wait(60)
        return None

    def upload() -> None:
        with interrupted_by(run.token), pytest.raises(CancelledError):
            host.upload_of(run)
        ended.set()

    lakefs.before = hang
    thread = threading.Thread(target=upload)
    thread.start()
    try:
        assert hangs.wait(60)
        cancelled_at = time.monotonic()
        run.token.cancel(CancelledError("by the client"))
        assert ended.wait(60)
        assert time.monotonic() - cancelled_at < 5, "ten times what is promised is 10 s"
    finally:
        lakefs.before = None
        thaw.set()
        thread.join()
        host.store.close()


@pytest.mark.parametrize("only_uploads", [True, False])
@pytest.mark.parametrize(
    "seeds", [range(4), pytest.param(range(4, 254), marks=pytest.mark.long, id="long")]
)
@pytest.mark.timeout(1200)
def test_a_reported_commit_holds_exactly_its_model(
    races: Races, *, seeds: range, only_uploads: bool
) -> None:
    for seed in seeds:
        repo = races.store.ensure_repository(f"race-{seed}-{only_uploads}".lower()).name
        races.run(repo, seed, only_uploads=only_uploads)


def test_a_mixture_that_somebody_else_mends_is_over(races: Races, lakefs: FaultyLakeFS) -> None:
    """The job's own commit stays a mixture; the target's head is exact, and is reported."""
    repo = races.store.ensure_repository("mended-by-others").name
    person = Writer(races.store, races.folder, repo, random.Random(0))
    files, merges = {"a": b"1"}, 0

    def before(call: Call) -> Answer | None:
        if is_merge(call):
            person.add()
        return None

    def after(call: Call) -> Answer | None:
        nonlocal merges
        if is_merge(call):
            merges += 1
            lakefs.before = None
            person.delete_others_than(files)
        return None

    def is_merge(call: Call) -> bool:
        return call.name == "merge" and call.parameters["destination"] == "main"

    lakefs.before, lakefs.after = before, after
    try:
        commit = races.host.upload_once(repo, files)
    finally:
        lakefs.before = lakefs.after = None
    assert merges == 1, "there was nothing to mend any more"
    assert held(races.store, repo, commit) == wanted(files)
