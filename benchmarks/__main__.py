"""``python -m benchmarks [transfer|many-files|front|overload|soak …]``: start, measure, print.

Without names: all but the soak. Exit code 1 if overload or soak are not as they should be.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.front import measure_front
from benchmarks.many_files import measure_many_files
from benchmarks.overload import MOST_QUEUED, measure_overload
from benchmarks.serving import serving
from benchmarks.soak import RETENTION_SECONDS, measure_soak
from benchmarks.stack import Stack, stack
from benchmarks.transfer import measure_transfer

MEASUREMENTS: dict[str, Callable[[Stack], None]] = {
    "transfer": measure_transfer,
    "many-files": measure_many_files,
    "front": measure_front,
}
NAMES = (*MEASUREMENTS, "overload", "soak")


def main() -> int:
    """Run what is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="name")
    parser.add_argument("--minutes", type=float, default=30, help="of the soak")
    parsed = parser.parse_args()
    names = parsed.names or NAMES[:-1]
    # Ended politely, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    simple = [name for name in names if name in MEASUREMENTS]
    right = True
    if simple:
        with _directory() as directory, stack(Path(directory)) as running:
            for name in simple:
                MEASUREMENTS[name](running)
    if "overload" in names:
        queued = {"LEDGER_MAX_QUEUED": str(MOST_QUEUED)}
        with _directory() as directory, serving(Path(directory), **queued) as served:
            right = measure_overload(served)
    if "soak" in names:
        retention = {"LEDGER_RETENTION_SECONDS": str(RETENTION_SECONDS)}
        with _directory() as directory, serving(Path(directory), **retention) as served:
            right = measure_soak(served, parsed.minutes) and right
    return 0 if right else 1


def _directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="bench-")


if __name__ == "__main__":
    sys.exit(main())
