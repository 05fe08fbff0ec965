"""Uploaded files exist for the key that made them, and for admins."""

from collections.abc import Iterator
from typing import Any

from shared.media.files import FileStore
from shared.media.references import FILE_ID


def names_files(data: dict[str, Any]) -> bool:
    """Return whether data name an uploaded file."""
    return any(True for _ in _file_ids(data))


def check_files(files: FileStore, submitter: str | None, data: dict[str, Any]) -> None:
    """Refuse data that name a file of somebody else, as if there were none."""
    if submitter is None:
        return
    for field, file_id in _file_ids(data):
        files.get(file_id, field, submitter=submitter)


def _file_ids(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the ids of files in data, each with its field."""
    values: list[tuple[str, Any]] = [("data", data)]
    while values:
        field, value = values.pop()
        if isinstance(value, dict):
            values += [(f"{field}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            values += [(f"{field}.{number}", inner) for number, inner in enumerate(value)]
        elif isinstance(value, str) and FILE_ID.fullmatch(value):
            yield field, value
