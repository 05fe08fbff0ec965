"""``python -m tests.chaos``: a run from the command line; exit code 1 if anything is wrong."""

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos.run import Options, run
from tests.servers import lakefs_running, mlflow_running

#: Of each minute.
JOBS, FAULTS = 120, 7


def main() -> int:
    """Run, show, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="the same seed, the same schedule; else a new one")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, help=f"default: {JOBS} a minute")
    parser.add_argument("--faults", type=int, help=f"default: {FAULTS} a minute")
    parser.add_argument("--report", type=Path, default=Path(".lifecycle/chaos.json"))
    parser.add_argument("--keep", action="store_true", help="keep logs and data in any case")
    parsed = parser.parse_args()
    seed = secrets.randbelow(10**6) if parsed.seed is None else parsed.seed
    console = Console()
    console.print(f"[bold]seed {seed}")
    options = Options(
        seed=seed,
        seconds=parsed.minutes * 60,
        jobs=parsed.jobs or round(parsed.minutes * JOBS),
        faults=round(parsed.minutes * FAULTS) if parsed.faults is None else parsed.faults,
    )
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    for name in ("mlflow", "lakefs", "run"):
        (directory / name).mkdir()
    # Ended politely, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        mlflow_running(directory / "mlflow") as mlflow_url,
        lakefs_running(directory / "lakefs") as lakefs,
    ):
        report = run(options, directory / "run", mlflow_url, lakefs, console)
    report.write(parsed.report)
    report.show(console)
    console.print(f"report: {parsed.report}")
    if report.passed and not parsed.keep:
        shutil.rmtree(directory)
    else:
        console.print(f"logs and data are kept in {directory}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
