"""Where a version's files are: its tags decide, as its source cannot be changed."""

import pytest
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from shared.models import LakeFSLocation
from shared.registry.versions import location_of

SOURCE = "lakefs://repo/old/some/path"
OLD = LakeFSLocation("repo", "old", "some/path")


@pytest.mark.parametrize(
    ("source", "tags", "location"),
    [
        (SOURCE, {}, OLD),
        (SOURCE, {"lakefs_repo": "repo"}, OLD),
        (
            SOURCE,
            {"lakefs_repo": "repo", "lakefs_commit": "new", "lakefs_path": "some/path"},
            LakeFSLocation("repo", "new", "some/path"),
        ),
        (
            "lakefs://repo/old",
            {"lakefs_repo": "repo", "lakefs_commit": "new"},
            LakeFSLocation("repo", "new", ""),
        ),
        ("ollama:///llama", {"lakefs_repo": "repo", "lakefs_commit": "new"}, None),
    ],
    ids=["no tags", "some tags", "tags of another commit", "root of a commit", "not in lakeFS"],
)
def test_location(source: str, tags: dict[str, str], location: LakeFSLocation | None) -> None:
    kept = [ModelVersionTag(*tag) for tag in tags.items()]  # type: ignore[no-untyped-call]
    version = ModelVersion("model", "1", 0, source=source, tags=kept)
    assert location_of(version) == location
