"""What the ledger costs Redis, and how that grows with the number of jobs.

The real scripts on a Redis of its own. Times are Redis' own (``INFO commandstats``, ``SLOWLOG``):
for so long it serves nobody else. Calls are pipelined, so that the client's core does not count.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from benchmarks.ledger_server import JOB_RESULT, LedgerServer, ledger_server, new_job
from shared.jobs import JobKind, JobState
from shared.ledger import Filter

#: Calls that are measured together; the median of several such rounds counts.
ROUND = 500
ROUNDS = 9
COST_JOBS = 10_000
SMALL, LISTED, LARGE = 1_000, 100_000, 1_000_000
BATCH, BATCHES = 5_000, 3
INPUTS = 1_000
LEASE_SECONDS = 2.0


@dataclass
class Report:
    """The rows that were measured, each with its bound."""

    rows: dict[str, float] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, most: float | None = None) -> None:
        """Add a row, and print it."""
        self.rows[name] = round(value, 2)
        right = most is None or value <= most
        if not right:
            self.missed.append(name)
        bound = "" if most is None else f"  at most {most:g}  {'pass' if right else 'FAIL'}"
        print(f"{name:44} {value:12.2f}{bound}", flush=True)


def measure_ledger(large: int = LARGE) -> bool:
    """Print all rows, the last line as JSON; return whether each is within its bound."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        with ledger_server(Path(directory)) as server:
            _cost(server, report)
        with ledger_server(Path(directory)) as server:
            _large_inputs(server, report)
        with ledger_server(Path(directory)) as small, ledger_server(Path(directory)) as server:
            small.fill(SMALL)
            _reconcile(small, report, "idle")
            server.fill(LISTED)
            _reconcile(server, report, f"{LISTED} ended")
            _lists(server, report)
            _batches(server, report)
            server.fill(large)
            _growth(small, server, report, large)
            _lost_lease(server, report)
    print(json.dumps({**report.rows, "missed": report.missed}))
    return not report.missed


# ── cost ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Costs:
    """Microseconds of Redis' time and commands of each operation, one call each."""

    microseconds: dict[str, float]
    commands: dict[str, float]


def _rounds(servers: Sequence[LedgerServer]) -> list[Costs]:
    """Measure the operations on several servers in turns, so that noise of the machine hits all."""
    times: list[dict[str, list[float]]] = [{} for _ in servers]
    commands: list[dict[str, float]] = [{} for _ in servers]
    for _ in range(ROUNDS):
        for server, seen, counted in zip(servers, times, commands, strict=True):
            for name, (microseconds, number) in _round(server).items():
                seen.setdefault(name, []).append(microseconds)
                counted[name] = number
    return [
        Costs({name: statistics.median(found) for name, found in seen.items()}, counted)
        for seen, counted in zip(times, commands, strict=True)
    ]


def _round(server: LedgerServer) -> dict[str, tuple[float, float]]:
    costs = dict[str, tuple[float, float]]()

    @contextmanager
    def measured(name: str) -> Iterator[None]:
        server.reset()
        yield
        costs[name] = server.spent(ROUND)

    with measured("accept"):
        server.accept([new_job(number) for number in range(ROUND)], keys=True)
    with measured("claim"):
        running = server.claim(ROUND)
    server.accept([new_job(number) for number in range(ROUND)], keys=True)
    with measured("finish and claim"):
        more = server.finish(running, claims=True)
    with measured("finish"):
        server.finish(more)
    with measured("get"):
        for job in more:
            server.ledger.get(job.id)
    return costs


def _cost(server: LedgerServer, report: Report) -> None:
    (costs,) = _rounds([server])
    for name, most in (("accept", 90.0), ("claim", None), ("finish and claim", 140.0)):
        report.add(f"{name}: us of Redis", costs.microseconds[name], most)
        report.add(f"{name}: commands of Redis", costs.commands[name])
    report.add("get: us of Redis", costs.microseconds["get"])
    report.add("script calls of a busy worker per job", 1, 2)
    before, own = server.memory(), 0
    for _ in range(COST_JOBS // ROUND):
        jobs = [new_job(number) for number in range(ROUND)]
        server.accept(jobs, keys=True)
        server.finish(server.claim(ROUND))
        own += sum(len(json.dumps(job.request, separators=(",", ":"))) for job in jobs)
        own += len(jobs) * len(json.dumps(JOB_RESULT))
    bytes_each = (server.memory() - before - own) / COST_JOBS
    report.add("bytes of an ended job, beside its texts", bytes_each, 2048)


def _growth(small: LedgerServer, server: LedgerServer, report: Report, large: int) -> None:
    at_small, at_large = _rounds([small, server])
    for name, microseconds in at_large.microseconds.items():
        growth = microseconds / at_small.microseconds[name]
        report.add(f"{name}: growth from {SMALL} to {large} jobs", growth, 1.3)
    report.add(f"GB of Redis at {large} jobs", server.memory() / 1e9)


# ── listings ──────────────────────────────────────────────────────────────────


def _lists(server: LedgerServer, report: Report) -> None:
    """List by every combination of filters, with frequent, rare and unknown values."""
    parent, _ = server.batch(BATCH)
    rare = server.accept([replace(new_job(1), model="rare", submitter="rare")])[0]
    worst, worst_filter, gaps = 0.0, Filter(), 0
    for state, kind, model, submitter, parent_id in product(
        (None, JobState.SUCCEEDED, JobState.RUNNING),
        (None, JobKind.INFER, JobKind.REGISTER),
        (None, "model-1", "unknown"),
        (None, "key-1", "rare"),
        (None, parent.id, rare.id),
    ):
        wanted = Filter(state, kind, model, parent_id, submitter)
        cursor = None
        for _ in range(3):
            started = time.perf_counter()
            jobs, cursor = server.ledger.page(wanted, limit=50, cursor=cursor)
            taken = (time.perf_counter() - started) * 1e3
            if taken > worst:
                # The machine may have been busy: what is slow is slow again.
                started = time.perf_counter()
                server.ledger.page(wanted, limit=50, cursor=cursor)
                taken = min(taken, (time.perf_counter() - started) * 1e3)
            if taken > worst:
                worst, worst_filter = taken, wanted
            gaps += cursor is not None and len(jobs) < 50
            if cursor is None:
                break
    report.add(f"ms of the slowest list at {LISTED}", worst, 20)
    print(f"  the slowest: {worst_filter}")
    report.add("pages that are not full while more follow", gaps, 0)
    server.ledger.cancel(parent.id)
    server.ledger.cancel(rare.id)


# ── batches ───────────────────────────────────────────────────────────────────


def _batches(server: LedgerServer, report: Report) -> None:
    """Accept, cancel, retry and conclude a batch, and see for how long Redis is held each time."""
    held, missing = dict[str, float](), 0
    # The least of several runs: other programs of this machine interrupt Redis too.
    for _ in range(BATCHES):
        run, without_end = _batch(server)
        held = {name: min(each, held.get(name, each)) for name, each in run.items()}
        missing += without_end
    for name, milliseconds in held.items():
        report.add(f"ms held: batch of {BATCH}: {name}", milliseconds, 20)
    report.add("children of batches without an end", missing, 0)


def _batch(server: LedgerServer) -> tuple[dict[str, float], int]:
    """Return for how long each step held Redis, in ms, and how many children are not in the end."""
    held = dict[str, float]()

    @contextmanager
    def observed(name: str) -> Iterator[None]:
        server.client.slowlog_reset()
        yield
        entries = server.client.slowlog_get(1000)
        held[name] = max((entry["duration"] / 1e3 for entry in entries), default=0.0)

    with observed("accept"):
        parent, children = server.batch(BATCH)
    with observed("cancel"):
        server.ledger.cancel(parent.id)
    with observed("retry"):
        server.ledger.revive(parent.id)
    with observed("list of children"):
        server.ledger.page(Filter(JobState.QUEUED, parent_id=parent.id))
    with observed("end"):
        for start in range(0, BATCH, ROUND):
            failed = JobState.FAILED if start == 0 else JobState.SUCCEEDED
            server.finish(server.claim(ROUND, ("download",)), state=failed)
        server.until(lambda: server.ledger.ended(parent.id))
    with observed("retry of the failed"):
        server.ledger.revive(parent.id)
    with observed("second end"):
        server.finish(server.claim(ROUND, ("download",)))
        server.until(lambda: server.ledger.ended(parent.id))
    result = server.ledger.get(parent.id).result or {}
    return held, len(children) - len(result["succeeded"])


# ── leases, inputs, reconciliation ────────────────────────────────────────────


def _lost_lease(server: LedgerServer, report: Report) -> None:
    """Lose a lease while many ended jobs are to be forgotten."""
    server.expire(LISTED)
    server.ledger.reconcile()
    server.accept([new_job(1)])
    (job,) = server.claim(1)
    started = time.monotonic()

    def lost() -> bool:
        server.ledger.reconcile()
        return server.ledger.get(job.id).crashes > 0

    server.until(lost, pause_seconds=1.0)
    seconds = time.monotonic() - started
    report.add(f"lease lost behind {LISTED} expiries, in leases", seconds / LEASE_SECONDS, 2)


def _large_inputs(server: LedgerServer, report: Report) -> None:
    before = server.memory()
    image = "A" * 1_000_000
    server.client.slowlog_reset()
    for number in range(0, INPUTS, 20):
        jobs = [new_job(each, image=image) for each in range(number, number + 20)]
        server.accept(jobs)
        server.finish(server.claim(len(jobs)))
    held = max((entry["duration"] / 1e3 for entry in server.client.slowlog_get(100)), default=0.0)
    report.add("ms held: accept of a 1 MB input", held, 20)
    left = (server.memory() - before) / 1e6
    report.add(f"MB left by {INPUTS} ended jobs of 1 MB", left, 20)


def _reconcile(server: LedgerServer, report: Report, name: str) -> None:
    server.ledger.reconcile()
    server.reset()
    for _ in range(20):
        server.ledger.reconcile()
    microseconds, commands = server.spent(20)
    report.add(f"reconcile, {name}: us of Redis", microseconds)
    report.add(f"reconcile, {name}: commands of Redis", commands)
