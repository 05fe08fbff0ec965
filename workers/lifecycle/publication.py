"""A model's directory on a branch of lakeFS, made equal to the staged one."""

import hashlib
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.cancellation import CancelToken
from shared.errors import Interruption
from shared.lakefs.store import LakeFSStore
from shared.models import StoredFile
from shared.staged_models import StagedFile, StagedModel
from workers.context import JobContext

HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Counts:
    """What a model's commit took."""

    files: int
    #: Sent by the job, in any of its runs.
    uploaded_bytes: int
    #: Already at the target's head when the run began.
    skipped_bytes: int


class Directory:
    """The directory that is called like the staged model, on any branch of a repository."""

    def __init__(
        self,
        store: LakeFSStore,
        repo: str,
        model: StagedModel,
        context: JobContext,
        concurrent_files: int,
    ) -> None:
        self._store = store
        self._repo = repo
        self._model = model
        self._context = context
        self._concurrent_files = concurrent_files

    def compare(self, branch: str) -> Counts:
        """Count what a branch lacks and has."""
        lacking = sum(file.size_bytes for file in self._lacking(self._files(branch)))
        total = self._model.size_bytes
        return Counts(len(self._model.files), lacking, total - lacking)

    def settle(self, branch: str) -> None:
        """Upload what the branch lacks, delete what the model has no more, and commit."""
        there = self._files(branch)
        self._upload(branch, self._lacking(there))
        leftovers = sorted(there.keys() - self._digests.keys())
        self._store.delete_files(
            self._repo, branch, [f"{self._model.name}/{path}" for path in leftovers]
        )
        if self._store.has_uncommitted(self._repo, branch):
            self._store.commit_changes(self._repo, branch, f"Stage {self._model.name}")

    @cached_property
    def _digests(self) -> dict[str, str]:
        """The sha256 of every file; computed for those that no download verified."""
        root, token = self._model.path, self._context.token
        return {
            file.path: file.sha256 or _sha256(root / file.path, token) for file in self._model.files
        }

    def _files(self, branch: str) -> dict[str, StoredFile]:
        found = self._store.files(self._repo, branch, self._model.name, missing_ok=True)
        return {file.path: file for file in found}

    def _lacking(self, there: dict[str, StoredFile]) -> list[StagedFile]:
        def same(file: StagedFile) -> bool:
            stored = there.get(file.path)
            wanted = (file.size_bytes, self._digests[file.path])
            return stored is not None and (stored.size_bytes, stored.sha256) == wanted

        return [file for file in self._model.files if not same(file)]

    def _upload(self, branch: str, files: list[StagedFile]) -> None:
        """Send files in parallel; the first failure stops the others."""
        meter = _Meter(self._context, self._model.size_bytes, files)
        stop = CancelToken()

        def put(file: StagedFile) -> None:
            def on_bytes(size_bytes: int) -> None:
                stop.check()
                meter.add(size_bytes, file.path)

            self._context.check()
            self._store.put(
                self._repo,
                branch,
                f"{self._model.name}/{file.path}",
                self._model.path / file.path,
                sha256=self._digests[file.path],
                token=self._context.token,
                on_bytes=on_bytes,
            )

        with ThreadPoolExecutor(self._concurrent_files, thread_name_prefix="upload") as pool:
            futures = [pool.submit(put, file) for file in files]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception()]
            if failed:
                stop.cancel(Interruption("another file of the job failed"))
                pool.shutdown(cancel_futures=True)
                failed[0].result()


class _Meter:
    """Adds up the bytes of files that move at the same time; begins with those that need not."""

    def __init__(self, context: JobContext, total: int, files: list[StagedFile]) -> None:
        self._context = context
        self._total = total
        self._completed = total - sum(file.size_bytes for file in files)
        self._lock = threading.Lock()
        self.add(0, "")

    def add(self, size_bytes: int, path: str) -> None:
        # Reported under the lock: a smaller sum must not be written after a larger one.
        with self._lock:
            self._completed += size_bytes
            self._context.report(self._completed, self._total, "bytes", path)


def _sha256(path: Path, token: CancelToken) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            token.check()
            digest.update(chunk)
    return digest.hexdigest()
