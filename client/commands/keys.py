"""``lifecycle keys``: API keys, in Redis itself, so that the first one needs no front.

What takes long to import is imported by the command that needs it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.identity.roles import Role

if TYPE_CHECKING:
    from shared.identity.keys import ApiKey
    from shared.identity.store import KeyStore

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

#: Exit statuses of the command line: Redis out of reach, no such key.
_UNREACHABLE, _UNKNOWN = 3, 4
_DATA_DIR = Path(".lifecycle")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[
    Path,
    typer.Option(
        envvar="LIFECYCLE_DATA_DIR",
        help="Of the running stack whose Redis is meant, unless REDIS_URL says which.",
        file_okay=False,
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose it is, or what it is for.")],
    role: Annotated[
        Role,
        typer.Option(
            help="viewer: looks at models and workers. submitter: also has jobs and files of its "
            "own. admin: everything, and everybody's."
        ),
    ],
    expires_days: Annotated[
        float | None,
        typer.Option(min=0, max=36500, help="Good for so many days; else until it is revoked."),
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Make a key and print it: this once, as nobody keeps it."""
    if not name.isprintable() or not 0 < len(name) <= 100:
        raise typer.BadParameter("1 to 100 printable characters", param_hint="--name")
    until = datetime.now(UTC) + timedelta(days=expires_days) if expires_days is not None else None
    with _keys(data_dir) as keys:
        key, text = keys.create(name, role, until)
    if as_json:
        typer.echo(json.dumps({**_fields(key), "key": text}))
        return
    typer.echo(text)
    end = f"expires {_day(key.expires_at)}" if key.expires_at else "does not expire"
    typer.echo(f"Key {key.id}, {key.role}, {end}. It is not shown again.", err=True)


@app.command("ls")
def list_keys(as_json: AsJson = False, data_dir: DataDir = _DATA_DIR) -> None:
    """Show all keys, also those that are good no longer."""
    with _keys(data_dir) as store:
        keys = store.all()
    if as_json:
        typer.echo(json.dumps([_fields(key) for key in keys]))
    elif keys:
        _show(keys)
    else:
        typer.echo("There are no keys: whoever reaches the API may do everything.")


@app.command()
def revoke(key_id: str, as_json: AsJson = False, data_dir: DataDir = _DATA_DIR) -> None:
    """Make a key good for nothing, within seconds."""
    with _keys(data_dir) as keys:
        key = keys.revoke(key_id)
    typer.echo(json.dumps(_fields(key)) if as_json else f"Key {key.id} ({key.name}) is revoked.")


@contextmanager
def _keys(data_dir: Path) -> Iterator["KeyStore"]:
    """Yield the keys in the Redis that is meant; what goes wrong ends the command, readably."""
    from shared.errors import LifecycleError, NotFoundError
    from shared.identity.store import KeyStore
    from shared.ledger import connect
    from shared.settings import LedgerSettings, RedisSettings

    redis = RedisSettings()
    if "url" not in redis.model_fields_set and (url := _url_of_stack(data_dir)):
        redis = RedisSettings.model_validate({"url": url})
    client = connect(redis)
    try:
        yield KeyStore(client, LedgerSettings())
    except LifecycleError as error:
        typer.echo(error.detail, err=True)
        unknown = isinstance(error, NotFoundError)
        raise typer.Exit(_UNKNOWN if unknown else _UNREACHABLE) from error
    finally:
        client.close()


def _url_of_stack(data_dir: Path) -> str | None:
    """Return the address of the Redis of the stack that runs on a directory, with its password."""
    from embedded.data_directory import DataDirectory
    from embedded.health import RedisProbe

    record = DataDirectory(data_dir).running()
    probes = [part.probe for part in record.components] if record else []
    return next((probe.url for probe in probes if isinstance(probe, RedisProbe)), None)


def _show(keys: "list[ApiKey]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Id", "Name", "Role", "Created", "Last used", "State"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "Name")
    for key in keys:
        used = _day(key.last_used_at) if key.last_used_at else "never"
        style = "dim" if key.refusal() else ""
        state = f"until {_day(key.expires_at)}" if key.expires_at and not style else _state(key)
        table.add_row(key.id, key.name, key.role, _day(key.created_at), used, state, style=style)
    Console(highlight=False, markup=False).print(table)


def _state(key: "ApiKey") -> str:
    if key.refusal():
        return "revoked" if key.revoked_at else "expired"
    return "good"


def _day(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d}"


def _fields(key: "ApiKey") -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"digest"}) | {"state": _state(key)}
