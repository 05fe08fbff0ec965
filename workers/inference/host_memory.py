"""The memory that this process may take of the host's: a container's limit counts, too.

Source: the kernel's documentation of control groups v2, "Memory Interface Files".
"""

from collections.abc import Iterator
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def total_bytes() -> int:
    """Return the host's memory, or the limit of the container if that is less."""
    return min([int(psutil.virtual_memory().total), *map(_limit, _limited())])


def available_bytes() -> int:
    """Return what could be taken now without swapping, and within the container's limit."""
    free = [max(0, _limit(group) - _used(group)) for group in _limited()]
    return min([int(psutil.virtual_memory().available), *free])


def _limited() -> Iterator[Path]:
    """Yield the control groups that this process is in and that have a limit."""
    try:
        path = next(x[3:] for x in _OWN_GROUP.read_text().splitlines() if x.startswith("0::"))
    except (OSError, StopIteration):
        return
    own = _GROUPS / path.strip("/")
    for group in (own, *own.parents):
        if not group.is_relative_to(_GROUPS):
            return
        try:
            if (group / "memory.max").read_text().strip() != "max":
                yield group
        except OSError:
            continue  # the root has no such file


def _limit(group: Path) -> int:
    return int((group / "memory.max").read_text())


def _used(group: Path) -> int:
    """Return what the group holds and the kernel would not give back at once."""
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int((group / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
