"""A file on its way to the API, with a bar."""

from pathlib import Path

import rich.progress

from client import StoredFile
from client.terminal.session import Terminal


def upload_shown(terminal: Terminal, path: Path) -> StoredFile:
    """Upload a file."""
    quiet = terminal.as_json or not terminal.notes.is_terminal
    with (
        terminal.client() as client,
        rich.progress.open(
            path,
            "rb",
            description=f"Uploading {path.name}",
            console=terminal.notes,
            transient=True,
            disable=quiet,
        ) as content,
    ):
        return client.files.upload(content, path.name)
