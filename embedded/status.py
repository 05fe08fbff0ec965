"""Says what runs and whether it is well."""

from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from embedded.data_directory import DataDirectory


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
    console.print(f"Supervised by process {record.pid}. Models come from {record.hub}", style="dim")
    return all(healths)
