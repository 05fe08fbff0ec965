"""A model's directory on a branch of lakeFS, made equal to the staged model."""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from shared.cancellation import CancelToken
from shared.errors import Interruption, UnavailableError
from shared.lakefs.store import LakeFSStore
from shared.models import StoredFile, manifest_digest
from shared.staged_models import StagedFile, StagedModel
from workers.context import JobContext

HASH_CHUNK_BYTES = 1 << 20
#: Files below this size are sent with more of them at once: most of their time is round trips.
SMALL_FILE_BYTES = 1 << 20
SMALL_FILES_AT_ONCE = 16
#: How often the branch is compared with the staged model again after files were sent.
SETTLE_ATTEMPTS = 3
_MD5_LETTERS = 32


@dataclass(frozen=True)
class Counts:
    """What a model's commit took."""

    files: int
    #: Sent by the job, in any of its runs.
    uploaded_bytes: int
    #: Already at the target's head when the run began.
    skipped_bytes: int


class Directory:
    """The directory with the staged model's name, on any branch or commit of a repository."""

    def __init__(
        self, store: LakeFSStore, repo: str, model: StagedModel, concurrent_files: int
    ) -> None:
        self._store = store
        self._repo = repo
        self._model = model
        self._concurrent_files = concurrent_files
        self._sha256: dict[str, str] = {}
        self._md5: dict[str, str] = {}
        self._settled: dict[str, StoredFile] = {}

    def compare(self, branch: str, context: JobContext) -> Counts:
        """Count the bytes that a branch lacks and the bytes that it has."""
        lacking = sum(file.size_bytes for file in self._lacking(self._files(branch), context))
        total = self._model.size_bytes
        return Counts(len(self._model.files), lacking, total - lacking)

    def settle(self, branch: str, context: JobContext) -> None:
        """Upload what the branch lacks, delete what the model does not have, and commit."""
        self._settled = self._equalized(branch, context)
        if self._store.has_uncommitted(self._repo, branch):
            self._store.commit_changes(self._repo, branch, f"Stage {self._model.name}")

    def is_at(self, commit: str) -> bool:
        """Return whether a commit holds the files that were settled, and no others.

        Names, sizes, recorded digests and lakeFS' checksums are compared, in one listing.
        """
        return self._files(commit) == self._settled

    @property
    def manifest(self) -> str:
        """The digest of the files that were settled, as ``manifest_digest`` makes it."""
        return manifest_digest(self._settled.values())

    def _equalized(self, branch: str, context: JobContext) -> dict[str, StoredFile]:
        """Make the branch's files those of the model and return them as lakeFS lists them."""
        names = {file.path for file in self._model.files}
        there = self._files(branch)
        for _ in range(SETTLE_ATTEMPTS):
            lacking, leftovers = self._lacking(there, context), sorted(there.keys() - names)
            if not lacking and not leftovers and there:
                _Meter(context, self._model.size_bytes, [])  # reports all bytes as done
                return there
            self._upload(branch, lacking, context)
            self._store.delete_files(
                self._repo, branch, [f"{self._model.name}/{path}" for path in leftovers]
            )
            there = self._files(branch)
        raise UnavailableError(f"branch {branch!r} of {self._repo!r} does not keep what is sent")

    def _files(self, ref: str) -> dict[str, StoredFile]:
        found = self._store.files(self._repo, ref, self._model.name, missing_ok=True)
        return {file.path: file for file in found}

    def _lacking(self, there: Mapping[str, StoredFile], context: JobContext) -> list[StagedFile]:
        return [
            file
            for file in self._model.files
            if (stored := there.get(file.path)) is None or not self._same(file, stored, context)
        ]

    def _same(self, file: StagedFile, stored: StoredFile, context: JobContext) -> bool:
        """Compare by sha256; where another client recorded none, by lakeFS' MD5 of the content."""
        if stored.size_bytes != file.size_bytes:
            return False
        if stored.sha256 is not None:
            return stored.sha256 == self._digest(file, context)
        if len(stored.checksum) != _MD5_LETTERS:
            return False
        if file.path not in self._md5:
            self._md5[file.path] = _digest(self._model.path / file.path, "md5", context.cancel)
        return stored.checksum == self._md5[file.path]

    def _digest(self, file: StagedFile, context: JobContext) -> str:
        """Return a file's sha256; computed where no download verified it."""
        if file.sha256 is not None:
            return file.sha256
        if file.path not in self._sha256:
            self._sha256[file.path] = _digest(
                self._model.path / file.path, "sha256", context.cancel
            )
        return self._sha256[file.path]

    def _upload(self, branch: str, files: Sequence[StagedFile], context: JobContext) -> None:
        """Send files: large ones a few at once, small ones many."""
        meter = _Meter(context, self._model.size_bytes, files)
        large = [file for file in files if file.size_bytes >= SMALL_FILE_BYTES]
        small = [file for file in files if file.size_bytes < SMALL_FILE_BYTES]
        self._send(branch, large, self._concurrent_files, context, meter)
        self._send(branch, small, SMALL_FILES_AT_ONCE, context, meter)

    def _send(
        self,
        branch: str,
        files: Sequence[StagedFile],
        at_once: int,
        context: JobContext,
        meter: "_Meter",
    ) -> None:
        """Send files in parallel; the first failure stops the others."""
        stop = CancelToken()

        def put(file: StagedFile) -> None:
            def on_bytes(size_bytes: int) -> None:
                stop.check()
                meter.add(size_bytes, file.path)

            context.check()
            self._store.put(
                self._repo,
                branch,
                f"{self._model.name}/{file.path}",
                self._model.path / file.path,
                sha256=self._digest(file, context),
                token=context.cancel,
                on_bytes=on_bytes,
            )

        with ThreadPoolExecutor(at_once, thread_name_prefix="upload") as pool:
            futures = [pool.submit(put, file) for file in files]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception()]
            if failed:
                stop.cancel(Interruption("another file of the job failed"))
                pool.shutdown(cancel_futures=True)
                failed[0].result()


class _Meter:
    """Adds up the bytes of files that move at the same time; begins with those that need not."""

    def __init__(self, context: JobContext, total: int, files: Sequence[StagedFile]) -> None:
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


def _digest(path: Path, algorithm: str, token: CancelToken) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            token.check()
            digest.update(chunk)
    return digest.hexdigest()
