"""What a run showed: as tables for the eye, as JSON for programs."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.accounting import Books, Violation
from tests.chaos.driver import Order
from tests.chaos.incidents import Incident
from tests.chaos.recovery import Recovery

#: With default settings the stack goes on within this time after a kill.
RECOVERY_SECONDS = 30.0
_STATES = ("succeeded", "failed", "cancelled", "queued", "running")


@dataclass
class Report:
    """The figures of a run."""

    seed: int
    seconds: float
    #: Accepted jobs, children of batches not counted.
    accepted: int
    #: Jobs by what they are called, and state.
    jobs: dict[str, dict[str, int]]
    #: Faults by kind: how many, and how much they hit.
    faults: dict[str, tuple[int, int]]
    #: Ends of processes by kind and exit status.
    exits: dict[str, int]
    #: The front's answers by status, and calls without one.
    answers: dict[str, int]
    #: Why clients tried jobs again.
    retries: dict[str, int]
    recoveries: list[Recovery]
    #: How many accepted jobs Redis forgot, by what made it do so.
    forgotten: dict[str, int]
    #: Runs that lost their worker, and jobs that do no deed and were failed for that.
    lost_runs: int
    crashed: int
    violations: list[Violation]
    #: What could not be done on this machine.
    notes: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False))

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(_jobs_table(self.jobs))
        console.print(_faults_table(self.faults))
        console.print(_recovery_table(self.recoveries))
        for name in ("exits", "answers", "retries", "forgotten"):
            counts: dict[str, int] = getattr(self, name)
            console.print(f"{name}: " + ", ".join(f"{v} {k}" for k, v in sorted(counts.items())))
        console.print(f"{self.lost_runs} runs lost their worker; {self.crashed} good jobs crashed")
        for note in self.notes:
            console.print(f"note: {note}")
        for violation in self.violations:
            console.print(
                f"[red]{violation.kind}[/] {violation.subject}: {violation.detail}", highlight=False
            )
        faults = sum(count for count, _ in self.faults.values())
        verdict = (
            "[green]0 violations" if self.passed else f"[red]{len(self.violations)} violations"
        )
        console.print(
            f"[bold]seed {self.seed}: {self.accepted} accepted jobs, {faults} faults, {verdict}"
        )


def summarize(
    seed: int,
    seconds: float,
    orders: Iterable[Order],
    books: Books,
    incidents: Iterable[Incident],
    exits: Counter[str],
) -> Report:
    """Count."""
    jobs: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (work, state), count in books.ends.items():
        jobs[work][state] = count
    faults: dict[str, tuple[int, int]] = {}
    for incident in incidents:
        count, hits = faults.get(incident.kind, (0, 0))
        faults[str(incident.kind)] = (count + 1, hits + incident.hits)
    orders = list(orders)
    for order in orders:
        if order.submission.deed is not None:
            name = f"job: {order.submission.deed}"
            count, hits = faults.get(name, (0, 0))
            faults[name] = (count + 1, hits + len(order.job_ids))
    return Report(
        seed=seed,
        seconds=seconds,
        accepted=sum(len(order.job_ids) for order in orders),
        jobs=dict(jobs),
        faults=faults,
        exits=dict(exits),
        answers={},
        retries=dict(Counter(reason for order in orders for reason in order.retried)),
        recoveries=[],
        forgotten=dict(Counter(map(str, books.forgotten.values()))),
        lost_runs=sum(books.crashes.values()),
        crashed=sum(_crashed(order, books) for order in orders if not order.submission.deed),
        violations=books.violations,
        notes=[],
    )


def _crashed(order: Order, books: Books) -> int:
    errors = [books.jobs[each]["error"] or {} for each in order.job_ids & books.jobs.keys()]
    return [*order.retried, *(error.get("code") for error in errors)].count("crashed")


def _jobs_table(jobs: dict[str, dict[str, int]]) -> Table:
    table = Table("job", *_STATES, title="Jobs")
    for work, states in sorted(jobs.items()):
        table.add_row(work, *(str(states.get(state, "")) for state in _STATES))
    return table


def _faults_table(faults: dict[str, tuple[int, int]]) -> Table:
    table = Table("fault", "times", "hits", title="Faults")
    for kind, (count, hits) in sorted(faults.items()):
        table.add_row(kind, str(count), str(hits))
    return table


def _recovery_table(recoveries: list[Recovery]) -> Table:
    table = Table("killed", "times", "median s", "max s", "its jobs", "max s", title="Recovery")
    for each in recoveries:
        row: list[Any] = [each.place, len(each.service), f"{each.median:.1f}", f"{each.worst:.1f}"]
        row += [len(each.jobs), f"{max(each.jobs, default=0):.1f}"]
        table.add_row(*map(str, row))
    return table
