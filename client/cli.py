"""``lifecycle``: the single-machine stack from the command line.

What takes long to import is imported by the command that needs it.
"""

from pathlib import Path
from typing import Annotated

import typer

from client import keys

app = typer.Typer(
    help="Run the model lifecycle platform on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(keys.app, name="keys")

DataDir = Annotated[
    Path,
    typer.Option(
        envvar="LIFECYCLE_DATA_DIR", help="Where the stack keeps everything.", file_okay=False
    ),
]
FreePorts = Annotated[bool, typer.Option("--free-ports", help="Leave the usual ports alone.")]
_DATA_DIR = Path(".lifecycle")


@app.command()
def up(
    data_dir: DataDir = _DATA_DIR,
    free_ports: FreePorts = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Download models from an embedded hub, not the real one.")
    ] = False,
) -> None:
    """Start the stack and keep it running until Ctrl-C."""
    from embedded.ports import Ports  # noqa: PLC0415
    from embedded.session import run_session  # noqa: PLC0415
    from embedded.stack import Wishes  # noqa: PLC0415
    from embedded.up import up  # noqa: PLC0415

    wishes = Wishes(ports=Ports(any_free=free_ports), embedded_hub=hub)
    raise typer.Exit(run_session(data_dir, lambda session: up(session, wishes)))


@app.command()
def status(data_dir: DataDir = _DATA_DIR) -> None:
    """Show what runs and whether it is well; succeeds only if all of it is."""
    from embedded.data_directory import DataDirectory  # noqa: PLC0415
    from embedded.status import show_status  # noqa: PLC0415

    raise typer.Exit(0 if show_status(DataDirectory(data_dir)) else 1)


@app.command()
def demo(
    model: Annotated[
        str | None, typer.Option(help="A model of the real hub, in place of the one trained here.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stack up afterwards.")] = False,
    data_dir: DataDir = _DATA_DIR,
    free_ports: FreePorts = False,
) -> None:
    """Take a model from a hub to an answer, through the public API."""
    from embedded.demo import demonstrate  # noqa: PLC0415
    from embedded.ports import Ports  # noqa: PLC0415
    from embedded.session import run_session  # noqa: PLC0415

    ports = Ports(any_free=free_ports)
    raise typer.Exit(
        run_session(data_dir, lambda session: demonstrate(session, ports, model, keep=keep))
    )


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
