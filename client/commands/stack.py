"""``lifecycle up``, ``status``, ``demo``: the stack of this machine."""

from typing import Annotated

import typer

from client.commands.parameters import DATA_DIR, DataDir, FreePorts, Json


def up(
    data_dir: DataDir = DATA_DIR,
    free_ports: FreePorts = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Download models from an embedded hub, not the real one.")
    ] = False,
) -> None:
    """Start the stack and keep it running until Ctrl-C."""
    from embedded.ports import Ports
    from embedded.session import run_session
    from embedded.stack import Wishes
    from embedded.up import up

    wishes = Wishes(ports=Ports(any_free=free_ports), embedded_hub=hub)
    raise typer.Exit(run_session(data_dir, lambda session: up(session, wishes)))


def status(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Show what runs and whether it is well; succeeds only if all of it is."""
    from client.terminal.stack_status import show_status_json
    from embedded.data_directory import DataDirectory
    from embedded.status import show_status

    show = show_status_json if as_json else show_status
    raise typer.Exit(0 if show(DataDirectory(data_dir)) else 1)


def demo(
    model: Annotated[
        str | None, typer.Option(help="A model of the real hub, in place of the one trained here.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stack up afterwards.")] = False,
    data_dir: DataDir = DATA_DIR,
    free_ports: FreePorts = False,
) -> None:
    """Take a model from a hub to an answer, through the public API."""
    from embedded.demo import demonstrate
    from embedded.ports import Ports
    from embedded.session import run_session

    ports = Ports(any_free=free_ports)
    raise typer.Exit(
        run_session(data_dir, lambda session: demonstrate(session, ports, model, keep=keep))
    )
