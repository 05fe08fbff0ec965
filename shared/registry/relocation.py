"""Points registered versions to other commits after their files have moved to another lakeFS."""

from dataclasses import dataclass

from shared.models import LakeFSLocation
from shared.registry.client import Client
from shared.registry.queries import Queries
from shared.registry.versions import location_of
from shared.settings import MLflowSettings

#: The tag that keeps the commit which a version had before its files were moved.
COMMIT_BEFORE_MOVE = "lakefs_commit_before_move"


@dataclass(frozen=True)
class LocatedVersion:
    """A registered version whose files are in lakeFS."""

    name: str
    version: str
    location: LakeFSLocation

    def __str__(self) -> str:
        return f"version {self.version} of {self.name!r}"


class Relocation:
    """Reads and changes where MLflow says that the files of versions are."""

    def __init__(self, settings: MLflowSettings) -> None:
        self._client = Client(settings)
        self._queries = Queries(self._client)

    def versions(self) -> list[LocatedVersion]:
        """Return all versions whose files are in lakeFS, also those that others registered."""
        return [
            LocatedVersion(found.name, str(found.version), location)
            for found in self._queries.versions()
            if (location := location_of(found))
        ]

    def relocate(self, version: LocatedVersion, before: str, commit: str, manifest: str) -> None:
        """Point a version to its new commit; ``before`` is the one that it was registered with.

        ``manifest`` is the digest of the list of its files there, empty for none.

        ``lakefs_commit`` is written last. Readers follow it, so they see either the old location
        or the whole new one.
        """
        old = version.location
        new = LakeFSLocation(old.repo, commit, old.path)
        if manifest != old.manifest:
            self._set_tag(version, "lakefs_manifest", manifest)
        for tag, value in (
            (COMMIT_BEFORE_MOVE, before),
            ("lakefs_repo", new.repo),
            ("lakefs_path", new.path),
            ("physical_path", new.uri),
            ("lakefs_commit", new.commit),
        ):
            self._set_tag(version, tag, value)

    def _set_tag(self, version: LocatedVersion, tag: str, value: str) -> None:
        self._client.call(
            lambda mlflow: mlflow.set_model_version_tag(version.name, version.version, tag, value)
        )
