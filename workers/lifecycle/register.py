"""Makes a model in a lakeFS commit a version of a registered model."""

import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from shared.errors import ConflictError, InvalidInputError, ModelLoadError, UnsupportedTaskError
from shared.file_names import check_file_names
from shared.lakefs.store import LakeFSStore
from shared.lakefs.types import Commit
from shared.models import LakeFSLocation, StoredFile, manifest_digest
from shared.registry import Cause, ModelRegistry
from shared.requests import RegisterRequest
from shared.tasks import BUILT_IN_TASKS, Engine
from workers.context import JobContext
from workers.inference.architectures import check_model_supports
from workers.lifecycle.weights import StoredWeights

CONFIG = "config.json"
MAX_CONFIG_BYTES = 10_000_000

#: Takes a version's name, number and location; returns why lakeFS refuses to hold it, if it does.
Hold = Callable[[str, str, LakeFSLocation], str | None]
_NOT_HELD = (
    "No branch holds the version's commit: lakeFS' garbage collection may delete its files. "
    "It is tried again; reason: {reason}"
)


def _hold_nothing(*_: object) -> None:
    """Leave the commit to lakeFS: for scripts and tests without Redis."""


class Register:
    """The work of a registration job; done again it finds the version that it made before."""

    def __init__(
        self, registry: ModelRegistry, store: LakeFSStore, hold: Hold = _hold_nothing
    ) -> None:
        """Take what keeps the commit of a version from lakeFS' garbage collection."""
        self._registry = registry
        self._store = store
        self._hold = hold

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """Return name, version, stage and tags of the job's version."""
        request = RegisterRequest.model_validate(context.job.request)
        if request.engine == Engine.OLLAMA:
            raise UnsupportedTaskError("Ollama runs only models of its own store", field="engine")
        commit = self._commit(request)
        location, files = self._locate(request, commit)
        context.check()
        source = self._source(location, list(files.values()))
        if _judged(request):
            check_model_supports(self._config(location, files), request.task)
        weights = StoredWeights(self._store, location, files)
        countable = _judged(request) or weights.present
        parameters = weights.count_parameters() if countable else None
        context.check()
        version = self._registry.create_version(
            request.registered_name,
            location,
            self._tags(request, location, parameters)
            | source
            | {"lakefs_manifest": manifest_digest(files.values())},
            request.version_description,
            context.job.id,
        )
        not_held = self._hold(version.name, version.version, location)
        if request.stage is not None:
            version = self._registry.set_stage(
                version.name,
                version.version,
                request.stage,
                archive_existing=request.archive_existing_versions,
                cause=Cause("register", context.job.id, context.job.submitter),
            )
        return {
            "name": version.name,
            "version": version.version,
            "stage": version.stage,
            "tags": version.tags,
            **({"note": _NOT_HELD.format(reason=not_held)} if not_held else {}),
        }

    def _commit(self, request: RegisterRequest) -> Commit:
        """Return the commit that the request names by its id, or by a tag or branch."""
        if request.commit_id is not None:
            return self._store.commit_by_id(request.lakefs_repo, request.commit_id)
        assert request.ref is not None  # noqa: S101 - the request has one of the two
        return self._store.commit_by_name(request.lakefs_repo, request.ref)

    def _locate(
        self, request: RegisterRequest, commit: Commit
    ) -> tuple[LakeFSLocation, dict[str, StoredFile]]:
        """Return the model's directory and its files by path."""
        repo, path = request.lakefs_repo, request.path
        if path is None:
            path = _only_model(self._store.files(repo, commit.id, ""), commit, request)
        location = LakeFSLocation(repo, commit.id, path)
        files = {file.path: file for file in self._store.files(repo, commit.id, path)}
        check_file_names(files, repr(location.uri), directory=path, field="path")
        return location, files

    def _config(self, location: LakeFSLocation, files: dict[str, StoredFile]) -> dict[str, Any]:
        """Return the model's configuration."""
        if CONFIG not in files:
            raise InvalidInputError(f"{location.uri} has no {CONFIG}", field="path")
        path = f"{location.path}/{CONFIG}" if location.path else CONFIG
        data = self._store.read(location.repo, location.commit, path, 0, MAX_CONFIG_BYTES)
        try:
            config = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ModelLoadError(
                f"{CONFIG} of {location.uri} is not JSON: {error}", code="corrupt_config"
            ) from error
        if not isinstance(config, dict):
            raise ModelLoadError(
                f"{CONFIG} of {location.uri} is not an object", code="corrupt_config"
            )
        return config

    def _tags(
        self, request: RegisterRequest, location: LakeFSLocation, parameters: int | None
    ) -> dict[str, str]:
        """Return the version's tags: what it is, where it is and where it came from."""
        billions = request.model_params or (None if parameters is None else parameters / 1e9)
        return {
            "inference_task": request.task,
            "engine": request.engine,
            "lakefs_repo": location.repo,
            "lakefs_commit": location.commit,
            "lakefs_path": location.path,
            # Where the files are for all hosts; each keeps its own snapshot of it.
            "physical_path": location.uri,
            **({} if billions is None else {"model_params": _billions(billions)}),
            "inference_priority": "1" if request.set_priority_to_one else "0",
        }

    def _source(self, location: LakeFSLocation, files: list[StoredFile]) -> dict[str, str]:
        """Return the model's source, as the upload that brought the model recorded it.

        Raise ``ConflictError`` where the directory is not what that upload put there.
        """
        commit = self._store.last_change(location.repo, location.commit, location.path)
        metadata = commit.metadata if commit else {}
        if commit is None or metadata.get("path") != location.path:
            return {"model_source": "lakefs"}
        if not commit.holds(location.path, files):
            raise ConflictError(
                f"{location.uri} does not hold what its upload put there: another writer's files "
                "were merged with it. Upload the model again and register the new commit",
                field="commit_id",
                code="manifest_mismatch",
            )
        names = ("model_source", "model_name", "revision")
        return {"model_source": "lakefs"} | {n: metadata[n] for n in names if n in metadata}


def _judged(request: RegisterRequest) -> bool:
    """Return whether we know what the model must be like; else only a plugin's engine does."""
    return request.engine == Engine.TRANSFORMERS and request.task in BUILT_IN_TASKS


def _only_model(files: list[StoredFile], commit: Commit, request: RegisterRequest) -> str:
    """Return the one directory that holds a model, not counting those inside of it.

    A plugin's model may have no configuration: it is what the commit says that it brought.
    """
    found = sorted(
        PurePosixPath(file.path).parent for file in files if PurePosixPath(file.path).name == CONFIG
    )
    models = [each for each in found if not set(each.parents) & set(found)]
    if not models and not _judged(request):
        return commit.metadata.get("path", "")
    if len(models) != 1:
        names = ", ".join(repr(_text(each)) for each in models[:20])
        several = f"has several models, name one as path: {names}"
        raise InvalidInputError(
            f"commit {commit.id[:12]} {several if models else f'has no {CONFIG}'}", field="path"
        )
    return _text(models[0])


def _text(directory: PurePosixPath) -> str:
    """Return a directory as a location has it: nothing for the root."""
    return "" if directory == PurePosixPath() else str(directory)


def _billions(parameters: float) -> str:
    """Write a number of billions down to the single parameter, without an exponent."""
    return f"{parameters:.9f}".rstrip("0").rstrip(".")
