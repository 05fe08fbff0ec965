"""``python -m benchmarks [transfer|many-files|overload|ledger|affinity|soak|peers …]``: measure.

Without names: transfer, many-files and overload. Exit code 1 if a measurement with bounds fails.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.affinity import measure_affinity, rig
from benchmarks.ledger import measure_ledger
from benchmarks.many_files import measure_many_files
from benchmarks.overload import MOST_QUEUED, measure_overload
from benchmarks.peers.comparison import Options, measure_peers
from benchmarks.peers.parties import PEERS
from benchmarks.serving import serving
from benchmarks.soak import RETENTION_SECONDS, measure_soak
from benchmarks.stack import Stack, stack
from benchmarks.transfer import measure_transfer

MEASUREMENTS: dict[str, Callable[[Stack], None]] = {
    "transfer": measure_transfer,
    "many-files": measure_many_files,
}
BY_DEFAULT = (*MEASUREMENTS, "overload")
NAMES = (*BY_DEFAULT, "ledger", "affinity", "soak", "peers")
#: The peers' environments are kept here between runs.
ENVIRONMENTS = Path(".lifecycle/peers")


def main() -> int:
    """Run what is named."""
    parsed = _parser().parse_args()
    names = parsed.names or BY_DEFAULT
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
    if "ledger" in names:
        right = measure_ledger() and right
    if "affinity" in names:
        with _directory() as directory, rig(Path(directory)) as prepared:
            right = measure_affinity(prepared) and right
    if "soak" in names:
        retention = {"LEDGER_RETENTION_SECONDS": str(RETENTION_SECONDS)}
        with _directory() as directory, serving(Path(directory), **retention) as served:
            right = measure_soak(served, parsed.minutes) and right
    if "peers" in names:
        options = Options(parsed.environments, parsed.rounds, parsed.seconds, parsed.only)
        # No party logs its calls.
        quiet = {"LOG_LEVEL": "warning"}
        with _directory() as directory, serving(Path(directory), **quiet) as served:
            measure_peers(served, Path(directory), options)
    return 0 if right else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="name")
    parser.add_argument("--minutes", type=float, default=30, help="soak: its duration")
    peers = parser.add_argument_group("peers")
    peers.add_argument("--rounds", type=int, default=5, help="rounds that the medians are of")
    peers.add_argument("--seconds", type=float, default=1.5, help="duration of one measurement")
    peers.add_argument(
        "--only",
        type=_peers,
        default=tuple(PEERS),
        metavar="NAME,…",
        help=f"peers to run, of {','.join(PEERS)} (default: all)",
    )
    peers.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        help="directory of the peers' environments (default: %(default)s)",
    )
    return parser


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    if unknown := set(names) - set(PEERS):
        raise argparse.ArgumentTypeError(f"unknown peers: {', '.join(sorted(unknown))}")
    return names


def _directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="bench-")


if __name__ == "__main__":
    sys.exit(main())
