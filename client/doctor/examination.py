"""All checks, at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from client.doctor import branches, machine, services, workers
from client.doctor.findings import Check, Finding
from client.doctor.scene import Scene


def checks_of(scene: Scene) -> list[Check]:
    """Return the checks in the order in which their findings are read."""
    return [
        machine.python,
        machine.packages,
        partial(machine.disk, scene),
        machine.gpu,
        partial(machine.ports, scene),
        partial(services.api, scene),
        partial(services.stores, scene),
        partial(workers.workers, scene),
        partial(branches.branches, scene),
    ]


def examine(checks: Sequence[Check]) -> list[Finding]:
    """Make all checks at once; none of them takes longer than a few seconds."""
    with ThreadPoolExecutor(len(checks)) as pool:
        return [finding for found in pool.map(lambda check: check(), checks) for finding in found]
