"""The staging area: models that were downloaded and not yet uploaded.

``<local_name>/``                    a finished model, with its manifest in ``.lifecycle.json``
``.partial/<local_name>/<commit>/``  what is being fetched
``.locks/<local_name>``              locked by whoever changes the model; dies with its process
``.former/<local_name>/<id>/``       a state that was replaced and that an import still needs
``.claims/<local_name>/<id>/<job>``  says which imports need a state; empty files

A finished model appears, and is replaced, by one rename. A directory without a manifest is a model
that somebody put there by hand: it can be listed and uploaded, and no download replaces it.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from shared.cancellation import CancelToken
from shared.directories import put_directory, sync
from shared.errors import (
    InsufficientDiskError,
    InvalidInputError,
    NotFoundError,
    RequestError,
)
from shared.file_lock import FileLock
from shared.file_names import check_file_names
from shared.requests import LocalName
from shared.settings import StorageSettings
from shared.staged_models import MANIFEST, Manifest, StagedFile, StagedModel, read_manifest

#: What was fetched of a model and not finished is deleted after this time without a download of it.
PARTIAL_KEPT_SECONDS = 7 * 86400.0
_READ_ATTEMPTS = 10
#: Bookkeeping of git and of the hub's client in a directory that was put here by hand.
_NOT_THE_MODELS = frozenset({".git", ".cache"})
_LOCAL_NAME: TypeAdapter[str] = TypeAdapter(LocalName)


class StagingArea:
    """The directory ``tmp/models`` of this host."""

    def __init__(
        self, settings: StorageSettings, has_ended: Callable[[str], bool] = lambda _: True
    ) -> None:
        """``has_ended`` tells of a job's id whether the job has ended or is unknown."""
        self._has_ended = has_ended
        self.root = settings.staging_dir.resolve()
        self._reserve_bytes = settings.reserve_bytes

    def list(self) -> tuple[StagedModel, ...]:
        """Return all finished models by name, without those that ``open`` refuses."""
        models = []
        names = sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else []
        for name in names:
            with suppress(RequestError):
                models.append(self.open(name))
        return tuple(models)

    def open(self, local_name: str, staged_id: str | None = None) -> StagedModel:
        """Return a finished model; hold ``lock`` for as long as its files are read.

        ``staged_id`` asks for one state of it, which another download may have replaced.
        """
        directory = self._directory(local_name)
        if staged_id is not None and (former := self._former(local_name) / staged_id).is_dir():
            return self._read(local_name, former)
        model = self._open(local_name, directory)
        if staged_id not in {None, model.staged_id}:
            raise NotFoundError(
                f"{local_name!r} is staged, but not in the state {staged_id}",
                field="staged_id",
                code="model_not_staged",
            )
        return model

    def _open(self, local_name: str, directory: Path) -> StagedModel:
        for _ in range(_READ_ATTEMPTS):
            with suppress(FileNotFoundError):  # a download may replace the model meanwhile
                before = _identity(directory)
                model = self._read(local_name, directory)
                if _identity(directory) == before:
                    return model
        raise NotFoundError(
            f"No model {local_name!r} in the staging area",
            field="local_model_name",
            code="model_not_staged",
        )

    def remove(self, local_name: str, token: CancelToken) -> None:
        """Delete a finished model; it disappears as a whole."""
        with self.lock(local_name, token):
            model = self.open(local_name)
            self.discard_partials(local_name)
            model.path.rename(self.partial(local_name, "removed"))
            self.discard_partials(local_name)
            shutil.rmtree(self._former(local_name), ignore_errors=True)

    @contextmanager
    def lock(self, local_name: str, token: CancelToken, *, shared: bool = False) -> Iterator[None]:
        """Keep others off a model, or with ``shared`` only those who change it.

        Waits for them, unless the token says stop.
        """
        path = self.root / ".locks" / self._directory(local_name).name
        with FileLock(path) as lock:
            os.utime(path)  # for `collect_expired`
            lock.acquire(token, exclusive=not shared)
            yield

    def partial(self, local_name: str, commit: str) -> Path:
        """Return the directory into which a commit is fetched; needs the lock."""
        directory = self._partials(local_name) / commit
        former = read_manifest(directory)
        if former and former.revision != commit:  # a kill fell between an exchange and its clean-up
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def reuse(self, model: StagedModel, directory: Path, wanted: Mapping[str, str]) -> None:
        """Link into a partial directory what a finished model has of ``wanted``, path → SHA-256."""
        paths = {file.sha256: file.path for file in model.files if file.sha256}
        for path, sha256 in wanted.items():
            target = directory / path
            if sha256 in paths and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with suppress(OSError):  # no hard links here: the file is fetched
                    target.hardlink_to(model.path / paths[sha256])

    def require_room(self, size_bytes: int) -> None:
        """Raise InsufficientDiskError unless that much and the reserve are free."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if size_bytes + self._reserve_bytes > free:
            raise InsufficientDiskError(
                f"{size_bytes:,} bytes are still to come and {self._reserve_bytes:,} must stay "
                f"free, but the disk of {self.root} has only {free:,}"
            )

    def publish(self, local_name: str, manifest: Manifest) -> StagedModel:
        """Make the partial directory of the manifest's commit the model; needs the lock."""
        directory = self.partial(local_name, manifest.revision)
        _prune(directory, {file.path for file in manifest.files})
        with (directory / MANIFEST).open("wb") as out:
            out.write(manifest.model_dump_json(indent=1).encode())
            out.flush()
            os.fsync(out.fileno())
        for folder, _, _ in os.walk(directory):
            sync(Path(folder))
        kept = self._place_of_replaced(local_name)
        put_directory(directory, self._directory(local_name))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            directory.rename(kept)
        sync(self.root)
        self.discard_partials(local_name)  # other commits, and the model's former self
        return self.open(local_name)

    def discard_partials(self, local_name: str) -> None:
        """Delete what was fetched of a model and is not needed any more; needs the lock."""
        shutil.rmtree(self._partials(local_name), ignore_errors=True)

    def collect_expired(self) -> None:
        """Delete the partials that nobody came back for, and the states that no job needs."""
        names = {path.name for place in (".former", ".claims") for path in self._in(place)}
        for local_name in sorted(names):
            with FileLock(self.root / ".locks" / local_name) as lock:
                if lock.try_acquire(exclusive=True):
                    self.collect_unclaimed(local_name)
        expired = time.time() - PARTIAL_KEPT_SECONDS
        for partials in self._in(".partial"):
            path = self.root / ".locks" / partials.name
            with suppress(FileNotFoundError):
                old = path.stat().st_mtime < expired
                with FileLock(path) as lock:
                    if old and lock.try_acquire(exclusive=True):
                        shutil.rmtree(partials)

    def claim(self, model: StagedModel, job_id: str) -> None:
        """Keep this state of a model until a job has ended; needs the lock."""
        claim = self._claims(model.name) / model.staged_id / job_id
        claim.parent.mkdir(parents=True, exist_ok=True)
        claim.touch()

    def collect_unclaimed(self, local_name: str) -> None:
        """Delete the replaced states of a model that no job needs any more; needs the lock."""
        for claim in self._claims(local_name).glob("*/*"):
            if self._has_ended(claim.name):
                claim.unlink()
        for former in self._former(local_name).glob("*"):
            if not self._is_claimed(local_name, former.name):
                shutil.rmtree(former)
        for kept in (self._claims(local_name), self._former(local_name)):
            for path in (*kept.glob("*"), kept):
                with suppress(OSError):  # not empty, or not there
                    path.rmdir()

    def _place_of_replaced(self, local_name: str) -> Path | None:
        """Return where the present state of a model goes if a job still needs it; else None."""
        try:
            staged_id = self.open(local_name).staged_id
        except NotFoundError:
            return None
        kept = self._former(local_name) / staged_id
        return kept if self._is_claimed(local_name, staged_id) and not kept.exists() else None

    def _is_claimed(self, local_name: str, staged_id: str) -> bool:
        claims = (self._claims(local_name) / staged_id).glob("*")
        return any(not self._has_ended(claim.name) for claim in claims)

    def _in(self, place: str) -> Iterator[Path]:
        """Return what one of the area's own directories has for each model."""
        return (self.root / place).glob("*")

    def _claims(self, local_name: str) -> Path:
        return self.root / ".claims" / self._directory(local_name).name

    def _former(self, local_name: str) -> Path:
        return self.root / ".former" / self._directory(local_name).name

    def _partials(self, local_name: str) -> Path:
        return self.root / ".partial" / self._directory(local_name).name

    def _directory(self, local_name: str) -> Path:
        try:
            return self.root / _LOCAL_NAME.validate_python(local_name)
        except ValidationError as error:
            raise InvalidInputError(
                f"{local_name!r} is not the name of a model in the staging area",
                field="local_model_name",
            ) from error

    def _read(self, name: str, directory: Path) -> StagedModel:
        manifest = read_manifest(directory)
        known = {file.path: file for file in manifest.files} if manifest else {}
        files, newest_ns = [], directory.stat().st_mtime_ns
        for path, stat in self._walk(directory, by_hand=manifest is None):
            newest_ns = max(newest_ns, stat.st_mtime_ns)
            was = known.get(path)
            same = was and (was.size_bytes, was.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
            sha256 = was.sha256 if was and same else None
            files.append(StagedFile(path, stat.st_size, sha256, stat.st_mtime_ns))
        check_file_names(
            (file.path for file in files),
            f"{name!r} in the staging area",
            directory=name,
            reserved=MANIFEST,
            field="local_model_name",
        )
        return StagedModel(
            name=name,
            path=directory,
            modified_at=manifest.finished_at if manifest else _time(newest_ns),
            files=tuple(sorted(files, key=lambda file: file.path)),
            source=manifest.source if manifest else None,
            repo_id=manifest.repo_id if manifest else None,
            revision=manifest.revision if manifest else None,
        )

    def _walk(self, directory: Path, *, by_hand: bool) -> Iterator[tuple[str, os.stat_result]]:
        """Yield a model's files by path; refuse what is not a file inside the staging area."""
        if not directory.resolve(strict=True).is_relative_to(self.root) or not directory.is_dir():
            raise _refused(directory)
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(directory / folder) as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        if folder or not by_hand or entry.name not in _NOT_THE_MODELS:
                            folders.append(f"{path}/")
                    elif not self._is_file(entry):
                        raise _refused(directory / path)
                    elif by_hand or path != MANIFEST:
                        yield path, entry.stat()

    def _is_file(self, entry: "os.DirEntry[str]") -> bool:
        """Return whether an entry is a file, or a link to one inside the staging area."""
        if entry.is_symlink():
            real = Path(entry.path).resolve(strict=True)
            return real.is_relative_to(self.root) and real.is_file()
        return entry.is_file()


def _refused(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"{path} is not a file or directory inside the staging area", field="local_model_name"
    )


def _identity(directory: Path) -> tuple[int, int]:
    """Tell one directory from another that came to its place, even under the same inode number."""
    stat = directory.stat()
    return stat.st_ino, stat.st_ctime_ns


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, tz=UTC)


def _prune(directory: Path, keep: set[str]) -> None:
    """Delete what an earlier download of the same commit, with other patterns, left behind."""
    for folder, _, names in os.walk(directory, topdown=False):
        for path in (Path(folder, name) for name in names):
            if path.relative_to(directory).as_posix() not in keep:
                path.unlink()
        with suppress(OSError):  # not empty
            Path(folder).rmdir()
