"""Says what runs and whether it is well."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from embedded.data_directory import DataDirectory, StackRecord
from embedded.stores import EMBEDDED, REAL, own_lakefs
from shared.lakefs.connection import connect
from shared.settings import LakeFSSettings

_TIMEOUT_SECONDS = 2.0


class LakeFSServer(BaseModel):
    """Which lakeFS a stack works with."""

    #: ``embedded``, ``real`` or ``from outside``.
    server: str
    #: lakeFS' version; the embedded server names the one whose API it has. None: no answer.
    version: str | None
    address: str
    #: The directory that holds its data; empty for one from outside.
    data: str

    def __str__(self) -> str:
        version = self.version or "of unknown version"
        if self.server == EMBEDDED:
            version = f"embedded server with the API of {version}"
        place = f", data in {self.data}" if self.data else f", {self.server}"
        return f"lakeFS: {version} at {self.address}{place}"


def lakefs_server(record: StackRecord, directory: DataDirectory) -> LakeFSServer:
    """Return which lakeFS a stack works with; asks it for its version."""
    part = record.component("lakefs")
    settings = LakeFSSettings().model_copy(
        update={"endpoint": part.address, "timeout_seconds": _TIMEOUT_SECONDS}
    )
    if part.note in {EMBEDDED, REAL}:
        settings = own_lakefs(directory, settings, part.address)
    return LakeFSServer(
        server=part.note, version=_version(settings), address=part.address, data=part.data
    )


def _version(settings: LakeFSSettings) -> str | None:
    try:
        with closing(connect(settings)) as http:
            answer = http.get("/config/version").raise_for_status()
            return str(answer.json()["version"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def show_status(directory: DataDirectory) -> bool:
    """Print every part of the stack on a directory, and return whether all of them are healthy."""
    console = Console(highlight=False)
    record = directory.running()
    if record is None:
        console.print(f"Nothing runs on {directory.path}. Start it with: lifecycle up (or make up)")
        return False
    with ThreadPoolExecutor(len(record.components)) as pool:
        healths = list(pool.map(lambda part: part.probe.healthy(), record.components))
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in ("Part", "Address", "Health", "Process"):
        table.add_column(heading, overflow="fold")
    for part, healthy in zip(record.components, healths, strict=True):
        health = "[green]healthy[/]" if healthy else "[red]no answer[/]"
        table.add_row(part.title, part.address, health, str(part.pid) if part.pid else part.note)
    console.print(table)
    console.print(str(lakefs_server(record, directory)), style="dim", markup=False, soft_wrap=True)
    console.print(f"Supervised by process {record.pid}. Models come from {record.hub}", style="dim")
    return all(healths)
