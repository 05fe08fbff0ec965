"""The download job: a model from the hub into the staging area, whole or not at all."""

import re
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnsafeModelError,
)
from shared.file_names import check_file_names
from shared.hub import Hub, HubFile, HubModel
from shared.requests import DownloadRequest
from shared.settings import HubSettings
from shared.staged_models import MANIFEST, Manifest, ManifestFile, StagedModel
from shared.staging import StagingArea
from workers.context import JobContext
from workers.lifecycle.connections import Connections
from workers.lifecycle.transfer import FetchedFile, FileFetch

#: Formats that Python's pickle reads, and that run code when they are loaded. Not among them:
#: ``.npy``, since numpy refuses pickles unless told otherwise, ``.h5`` and ``.msgpack``.
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
#: Leftovers of a training run: pickles, but not weights, and of no use to inference.
_TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*")
#: How often a running download looks at its token.
_POLL_SECONDS = 0.1


class Download:
    """Runs download jobs; one instance serves all of a worker."""

    def __init__(self, hub: Hub, staging: StagingArea, settings: HubSettings) -> None:
        self._hub = hub
        self._staging = staging
        self._settings = settings

    def __call__(self, ctx: JobContext) -> dict[str, Any]:
        """Fetch what the job's request names and return the job's result."""
        return self.fetch(ctx, DownloadRequest.model_validate(ctx.job.request))

    def fetch(self, ctx: JobContext, request: DownloadRequest) -> dict[str, Any]:
        """Have in the staging area what the request names; ``ctx`` may be another job's."""
        if request.model_source != "huggingface":
            raise InvalidInputError(
                f"Downloads from {request.model_source} are not there yet", field="model_source"
            )
        model = self._hub.model(request.model_name, request.revision)
        files = select(model, request, allow_pickle=self._settings.allow_pickle)
        check_file_names(
            (file.path for file in files),
            f"{request.model_name} at {model.commit[:8]}",
            directory=request.local_model_name,
            reserved=MANIFEST,
            field="model_name",
        )
        self._staging.collect_expired()
        with self._staging.lock(request.local_model_name, ctx.cancel):
            fetched, resumed = self._bring(ctx, request.local_model_name, model, files)
            staged = self._staging.open(request.local_model_name)
            if ctx.job.parent_id is not None:
                self._staging.claim(staged, ctx.job.parent_id)
            self._staging.collect_unclaimed(request.local_model_name)
        size_bytes = _size_bytes(files)
        ctx.report(size_bytes, size_bytes, "bytes", request.model_name)
        return {
            "local_model_name": request.local_model_name,
            "model_name": request.model_name,
            "model_source": request.model_source,
            "revision": model.commit,
            "staged_id": staged.staged_id,
            "files": len(files),
            "size_bytes": size_bytes,
            "fetched_bytes": fetched,
            "resumed_bytes": resumed,
        }

    def _bring(
        self, ctx: JobContext, local_name: str, model: HubModel, files: tuple[HubFile, ...]
    ) -> tuple[int, int]:
        """Make the staging area hold exactly these files; return the bytes fetched and resumed."""
        staged = self._staged(local_name, model.repo_id)
        if staged and staged.revision == model.commit and _same_files(staged, files):
            self._staging.discard_partials(local_name)
            return 0, _size_bytes(files)
        directory = self._staging.partial(local_name, model.commit)
        if staged:
            wanted = {file.path: file.sha256 for file in files if file.sha256}
            self._staging.reuse(staged, directory, wanted)
        self._staging.require_room(sum(_missing_bytes(directory, file) for file in files))
        fetched = self._fetch_all(ctx, model, files, directory)
        manifest = Manifest(
            source="huggingface",
            repo_id=model.repo_id,
            revision=model.commit,
            finished_at=datetime.now(UTC),
            files=tuple(
                ManifestFile.of(directory, file.path, done.sha256)
                for file, done in zip(files, fetched, strict=True)
            ),
        )
        self._staging.publish(local_name, manifest)
        return (
            sum(done.fetched_bytes for done in fetched),
            sum(done.resumed_bytes for done in fetched),
        )

    def _staged(self, local_name: str, repo_id: str) -> StagedModel | None:
        """Return the model that is there under the name; refuse to replace another one."""
        try:
            staged = self._staging.open(local_name)
        except NotFoundError:
            return None
        if staged.repo_id != repo_id:
            raise ConflictError(
                f"{local_name} in the staging area is {staged.repo_id or 'not from the hub'}; "
                f"delete it there before {repo_id} is downloaded",
                field="model_name",
                code="local_name_taken",
            )
        return staged

    def _fetch_all(
        self, ctx: JobContext, model: HubModel, files: tuple[HubFile, ...], directory: Path
    ) -> list[FetchedFile]:
        """Fetch several files at once; the first failure, or the job's token, stops all."""
        tally = _Tally(ctx, _size_bytes(files))
        stop = CancelToken()
        with (
            Connections(self._hub.headers(), self._settings.timeout_seconds) as connections,
            ThreadPoolExecutor(self._settings.concurrent_files, "download") as pool,
        ):
            fetches = [
                FileFetch(
                    connections,
                    self._hub.file_url(model.repo_id, model.commit, file.path),
                    file,
                    directory / file.path,
                    stop,
                    partial(tally.add, file.path),
                )
                for file in files
            ]
            futures = [pool.submit(fetch.run) for fetch in fetches]
            try:
                _join(futures, ctx.cancel)
            except BaseException:
                stop.cancel(CancelledError("The download of another file ended"))
                connections.cut()
                pool.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]


class _Tally:
    """Adds up the bytes of files that are fetched at the same time."""

    def __init__(self, ctx: JobContext, total: int) -> None:
        self._ctx = ctx
        self._total = total
        self._completed = 0
        self._lock = Lock()

    def add(self, path: str, count: int) -> None:
        with self._lock:
            self._completed += count
            completed = self._completed
        self._ctx.report(completed, self._total, "bytes", path)


def _join(futures: list[Future[FetchedFile]], token: CancelToken) -> None:
    """Wait for all; raise the first failure, or what the token says."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
        for future in done:
            future.result()
        token.check()


def _same_files(staged: StagedModel, files: tuple[HubFile, ...]) -> bool:
    untouched = {(file.path, file.size_bytes) for file in staged.files if file.sha256}
    return untouched == {(file.path, file.size_bytes) for file in files}


def _size_bytes(files: tuple[HubFile, ...]) -> int:
    return sum(file.size_bytes for file in files)


def _missing_bytes(directory: Path, file: HubFile) -> int:
    try:
        have = (directory / file.path).stat().st_size
    except FileNotFoundError:
        have = 0
    return file.size_bytes - have if have <= file.size_bytes else file.size_bytes


def select(model: HubModel, request: DownloadRequest, *, allow_pickle: bool) -> tuple[HubFile, ...]:
    """Return the files to fetch: those that the patterns leave, without pickles if that will do."""
    files = model.matching(request.allow_patterns, request.ignore_patterns)
    if not files:
        raise InvalidInputError(
            f"{model.repo_id} has {len(model.files)} files, and the patterns leave none",
            field="allow_patterns" if request.allow_patterns is not None else "ignore_patterns",
        )
    pickles = [file for file in files if _is_pickle(file.path)]
    has_safetensors = any(file.path.endswith(".safetensors") for file in files)
    weights = [file for file in pickles if not _TRAINING_STATE.match(_name(file.path))]
    if weights and not has_safetensors and not allow_pickle:
        raise UnsafeModelError(
            f"{model.repo_id} at {model.commit[:8]} has its weights only as pickles "
            f"({weights[0].path}), which can run code when they are loaded. Use a revision with "
            "safetensors, or set HF_ALLOW_PICKLE if the publisher is trusted",
            field="model_name",
            code="pickle_weights",
        )
    if weights and not has_safetensors:
        return files
    return tuple(file for file in files if not _is_pickle(file.path))


def _is_pickle(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in PICKLE_SUFFIXES


def _name(path: str) -> str:
    return PurePosixPath(path).name
