"""``lifecycle``: the platform from the command line.

What takes long to import is imported by the command that needs it.
"""

from typing import Annotated

import typer

from client.commands import (
    cache,
    doctor,
    files,
    infer,
    jobs,
    keys,
    lakefs,
    lifecycle,
    models,
    stack,
)

_STACK = "The stack of this machine"
_PLATFORM = "The platform"


def _root(
    api: Annotated[
        str | None,
        typer.Option(
            envvar="LIFECYCLE_API_URL",
            metavar="URL",
            help="The API; if not given, that of the stack that runs here.",
        ),
    ] = None,
) -> None:
    """Take models from a hub to production, and ask them.

    The key to an API that asks for one is read from LIFECYCLE_API_KEY.
    """


def _build() -> typer.Typer:
    """Put the commands together, in the order in which people need them."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, callback=_root)
    for command in (stack.up, stack.demo, stack.status, doctor.doctor):
        app.command(rich_help_panel=_STACK)(command)
    app.add_typer(lakefs.app, name="lakefs", rich_help_panel=_STACK)
    lifecycle.add_to(models.app)
    app.add_typer(models.app, name="models", rich_help_panel=_PLATFORM)
    app.command(rich_help_panel=_PLATFORM)(infer.infer)
    for name, group in (("jobs", jobs), ("files", files), ("cache", cache), ("keys", keys)):
        app.add_typer(group.app, name=name, rich_help_panel=_PLATFORM)
    return app


app = _build()


def main() -> None:
    """Run the command line."""
    from shared.settings import exit_on_wrong_settings  # noqa: PLC0415

    with exit_on_wrong_settings():
        app()


if __name__ == "__main__":
    main()
