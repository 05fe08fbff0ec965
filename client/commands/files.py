"""``lifecycle files``: pictures, sound, video and documents to ask models about."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.parameters import Json
from client.terminal import tables
from client.terminal.session import opened

if TYPE_CHECKING:
    from rich.table import Table

    from client import StoredFile

app = typer.Typer(help="Uploaded media for inference.", no_args_is_help=True)

FileId = Annotated[str, typer.Argument(help="As `files upload` printed it.")]


@app.command()
def upload(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    as_json: Json = False,
) -> None:
    """Upload a file, and print its id."""
    from client.terminal.uploading import upload_shown

    with opened(context, as_json) as terminal:
        stored = upload_shown(terminal, path)
        terminal.show(stored, lambda: stored.file_id)


@app.command()
def show(context: typer.Context, file_id: FileId, as_json: Json = False) -> None:
    """Show what is known of a file."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        stored = client.files.get(file_id)
        terminal.show(stored, lambda: _fields(stored))


@app.command("rm")
def delete(context: typer.Context, file_id: FileId, as_json: Json = False) -> None:
    """Delete a file."""
    with opened(context, as_json) as terminal, terminal.client() as client:
        stored = client.files.delete(file_id)
        terminal.show(stored, lambda: f"✓ deleted {stored.file_id}")


def _fields(stored: "StoredFile") -> "Table":
    return tables.pairs({name: str(value) for name, value in stored.document().items()})
