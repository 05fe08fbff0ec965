"""``lifecycle doctor``: examine everything."""

from typing import TYPE_CHECKING

import typer

from client.commands.parameters import DATA_DIR, DataDir, Json
from client.terminal.session import opened

if TYPE_CHECKING:
    from client.doctor.findings import Finding
    from client.terminal.session import Terminal


def doctor(context: typer.Context, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Examine every part, and say how to mend what is wrong; fails if a needed one is down."""
    with opened(context, as_json, data_dir) as terminal:
        from client.doctor.examination import checks_of, examine
        from client.doctor.findings import Level
        from client.doctor.scene import Scene

        findings = examine(checks_of(Scene.of(data_dir, terminal.url)))
        if as_json:
            terminal.show_json([finding.document() for finding in findings])
        else:
            _show(terminal, findings)
        raise typer.Exit(int(any(finding.level is Level.DOWN for finding in findings)))


def _show(terminal: "Terminal", findings: list["Finding"]) -> None:
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "down": ("✗", "red")}
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        mark = marks.get(finding.level.value, ("·", "dim"))
        grid.add_row(Text(*mark), finding.part, Text(finding.detail))
        if finding.mend:
            grid.add_row("", "", Text(f"→ {finding.mend}", style=mark[1]))
    terminal.out.print(grid)
