"""``lifecycle lakefs``: the real lakeFS in place of the embedded server."""

from typing import Annotated

import typer

from client.commands.parameters import DATA_DIR, DataDir

app = typer.Typer(
    no_args_is_help=True, help="Install lakeFS, and move models from the embedded server to it."
)


@app.command()
def install(
    version: Annotated[
        str | None,
        typer.Option(help="The lakeFS release to install, such as 1.88.0; the newest known here."),
    ] = None,
) -> None:
    """Download lakeFS from its releases into this Python environment.

    `lifecycle up` uses it on data directories that hold no data of the embedded server.
    """
    from embedded.errors import InstallError
    from embedded.lakefs_program import install_lakefs

    print("Downloading lakeFS; this takes a minute …")
    try:
        program, found = install_lakefs(version)
    except InstallError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    print(f"{found} is in {program}")


@app.command()
def move(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the lakeFS server to move to. Its keys are read from "
            "LAKEFS_ACCESS_KEY_ID and LAKEFS_SECRET_ACCESS_KEY. Without it, the models move to a "
            "lakeFS that the stack runs itself from then on.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to move, and change nothing.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Move everything from the embedded lakeFS server to a real one.

    Moves the head of every branch, every tag and the commit of every registered version, and points
    the versions to the new commits. Addresses with old commit ids keep working. The data of the
    embedded server stay. A move that is stopped goes on where it ended when it is run again; run
    again later, it moves what was stored since.
    """
    from embedded.moving.command import move as run_move
    from embedded.session import run_session

    raise typer.Exit(run_session(data_dir, lambda session: run_move(session, to, dry_run=dry_run)))
