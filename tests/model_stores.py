"""A versioned store in a directory and a registry in a dictionary, as inference needs them."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from shared.cancellation import CancelToken
from shared.errors import NoServableVersionError, NotFoundError
from shared.models import LakeFSLocation, ModelVersion, StoredFile
from shared.tasks import Engine, Task

_CHUNK_BYTES = 16 * 1024


class DirectoryStore:
    """Objects are the files of ``<root>/<repo>/<commit>/``."""

    def __init__(self, root: Path, *, records_digests: bool = True) -> None:
        self.root = root
        self._records_digests = records_digests
        self._lock = threading.Lock()
        #: The objects fetched, in the order in which they ended.
        self.fetched: list[str] = []

    def location(self, commit: str, path: str = "model", repo: str = "models") -> LakeFSLocation:
        """Name a place in the store."""
        return LakeFSLocation(repo, commit, path)

    def directory(self, location: LakeFSLocation) -> Path:
        """Return where a location's files are, to put them there."""
        return self.root / location.repo / location.commit / location.path

    def files(self, repo: str, ref: str, path: str) -> list[StoredFile]:
        """List what is below ``path``."""
        directory = self.root / repo / ref / path
        if not directory.is_dir():
            raise NotFoundError(f"lakefs://{repo}/{ref}/{path} does not exist")
        found = sorted(file for file in directory.rglob("*") if file.is_file())
        return [self._stored(file, directory) for file in found]

    def fetch(
        self,
        repo: str,
        ref: str,
        path: str,
        destination: Path,
        *,
        token: CancelToken,
        on_bytes: Callable[[int], None],
    ) -> str:
        """Copy one object in chunks."""
        digest = hashlib.sha256()
        with (self.root / repo / ref / path).open("rb") as source, destination.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                token.check()
                target.write(chunk)
                digest.update(chunk)
                on_bytes(len(chunk))
        with self._lock:
            self.fetched.append(path)
        return digest.hexdigest()

    def _stored(self, file: Path, directory: Path) -> StoredFile:
        content = file.read_bytes()
        return StoredFile(
            path=str(file.relative_to(directory)),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest() if self._records_digests else None,
            checksum=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        )


class StaticRegistry:
    """Versions by name; resolves as the platform's registry does."""

    def __init__(self) -> None:
        self._versions: dict[str, list[ModelVersion]] = {}

    def add(
        self,
        name: str,
        location: LakeFSLocation | None,
        *,
        stage: str = "production",
        task: str = Task.TEXT_GENERATION,
        engine: str = Engine.TRANSFORMERS,
        priority: bool = False,
        **tags: str,
    ) -> ModelVersion:
        """Register another version of a model."""
        versions = self._versions.setdefault(name, [])
        versions.append(
            ModelVersion(
                name=name,
                version=str(len(versions) + 1),
                stage=stage,
                task=task,
                engine=engine,
                location=location,
                tags=tags | ({"inference_priority": "1"} if priority else {}),
            )
        )
        return versions[-1]

    def resolve(
        self,
        name: str,
        version: str | None = None,
        stage: str | None = None,
        *,
        epoch: int | None = None,  # noqa: ARG002 - it remembers nothing
    ) -> ModelVersion:
        """Return the asked version, else the newest of the asked stage, else of production."""
        versions = self._versions.get(name)
        if not versions:
            raise NotFoundError(f"there is no registered model {name}")
        for candidate in reversed(versions):
            if version is not None and candidate.version == version:
                return candidate
            if version is None and candidate.stage == (stage or "production"):
                return candidate
        raise NoServableVersionError(f"{name} has no servable version")

    def list_models(self) -> list[ModelVersion]:
        """Return the versions in production and staging."""
        found = [version for versions in self._versions.values() for version in versions]
        return [version for version in found if version.stage in {"production", "staging"}]
