"""A minute of what ``make chaos`` does for ten, always with the same seed."""

import json
from collections.abc import Callable
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from shared.settings import LakeFSSettings
from tests.chaos.run import Options, run

OPTIONS = Options(
    # Of the seeds one that has every fault of Redis itself, and whose faults start torch again only
    # once: that is what takes time.
    seed=4979,
    seconds=22,
    jobs=70,
    faults=18,
    lease_seconds=8,
    quiet_seconds=240,
)


@pytest.mark.timeout(600)
def test_nothing_is_lost_stuck_or_done_twice(
    tmp_path: Path,
    mlflow_server: str,
    lakefs_server: LakeFSSettings,
    figure: Callable[[str], None],
) -> None:
    (tmp_path / "run").mkdir()
    shown = Console(file=StringIO(), width=120)
    report = run(OPTIONS, tmp_path / "run", mlflow_server, lakefs_server, shown)
    report.write(tmp_path / "chaos.json")
    figure(f"chaos: {report.accepted} jobs, {sum(n for n, _ in report.faults.values())} faults")
    violations = json.dumps([asdict(each) for each in report.violations], indent=1)
    assert report.passed, f"{violations}\n{tmp_path}"
    assert report.accepted >= OPTIONS.jobs
