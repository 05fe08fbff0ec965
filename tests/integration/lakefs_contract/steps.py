"""What the tests of this folder do again and again."""

import os
from typing import Any

import pytest
from lakefs.branch import Branch
from lakefs.exceptions import ServerException
from lakefs.reference import Reference


def namespace(name: str) -> str:
    """Return a place in the object store for a repository."""
    return f"{os.environ.get('LAKEFS_STORAGE_NAMESPACE', 'local://contract').rstrip('/')}/{name}"


def commit(branch: Branch, message: str, /, **files: str) -> str:
    """Write some short files, commit them and return the id of the commit."""
    for path, text in files.items():
        branch.object(path).upload(text)
    return branch.commit(message).id


def paths(reference: Reference, **options: Any) -> list[str]:
    """Return the paths that a listing shows."""
    return [item.path for item in reference.objects(**options)]


def message_of(failure: pytest.ExceptionInfo[ServerException]) -> str:
    """Return the message in the body of an error."""
    return str(failure.value.body["message"])
