"""Files: input media for inference."""

from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter

from client.answers import StoredFile
from client.calls import Call, Upload
from client.calls import get as look

#: Sending a piece may wait for a slow network.
_TIMEOUT_SECONDS = 120.0
_STORED = TypeAdapter(StoredFile)


def upload(content: Path | bytes | BinaryIO, name: str | None = None) -> Call[StoredFile]:
    """Upload a file; its ``file_id`` stands for it in a request.

    An answer that was lost leaves a second copy, which the platform deletes in its time.
    """
    path = content if isinstance(content, Path) else Path(str(getattr(content, "name", "file")))
    return Call(
        "POST",
        "/files",
        _STORED,
        upload=Upload(name or path.name, content),
        timeout_seconds=_TIMEOUT_SECONDS,
    )


def get(file_id: str) -> Call[StoredFile]:
    """Look at what is known of a file."""
    return look(f"/files/{file_id}", StoredFile)


def delete(file_id: str) -> Call[StoredFile]:
    """Delete a file; a job that needs it then fails."""
    return Call("DELETE", f"/files/{file_id}", _STORED, repeatable=False)
