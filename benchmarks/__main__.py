"""``python -m benchmarks [transfer] [front]``: start the stack, measure, print."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.front import measure_front
from benchmarks.stack import Stack, stack
from benchmarks.transfer import measure_transfer

MEASUREMENTS: dict[str, Callable[[Stack], None]] = {
    "transfer": measure_transfer,
    "front": measure_front,
}


def main() -> None:
    """Run what is named, or everything."""
    names = sys.argv[1:] or list(MEASUREMENTS)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        stack(Path(directory)) as running,
    ):
        for name in names:
            MEASUREMENTS[name](running)


if __name__ == "__main__":
    main()
