"""All parties in turn, several rounds; the medians as a table and as a line of JSON."""

import json
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.clients import Seen, closed_loop
from benchmarks.peers.environments import REQUIREMENTS, NotInstallableError
from benchmarks.peers.parties import ANSWER_SECONDS, PEERS, Call, Party, ours, peer
from benchmarks.peers.redis_calls import job_cost
from benchmarks.peers.streamed import first_text_seconds
from benchmarks.serving import Serving
from tests.processes import wait_until

CLIENTS = 32
FIRST_ANSWER_SECONDS = 120
MEASURES = ("submit", "answer", "p50")


@dataclass(frozen=True)
class Options:
    """How long the comparison takes, and with whom."""

    environments: Path
    rounds: int = 5
    seconds: float = 1.5
    only: Sequence[str] = tuple(PEERS)


#: Values of the rounds by party and measure: per second, p50 in seconds.
Values = dict[tuple[str, str], list[float]]


class WrongAnswerError(Exception):
    """A party gave other answers than it must."""


def measure_peers(serving: Serving, directory: Path, options: Options) -> None:
    """Start the peers beside the running platform, and print how they compare."""
    # It prepared the model, and has no part in inference.
    serving.platform.stop("cpu")
    refused: dict[str, str] = {}
    own = ours(serving)
    _first_answer(own.answer)
    # While nothing else runs on the machine.
    first_text = first_text_seconds(serving)
    with ExitStack() as stack:
        parties = [own]
        for name in options.only:
            try:
                running = peer(name, directory / name, options.environments)
                parties.append(stack.enter_context(running))
            except NotInstallableError as error:
                refused[name] = str(error)
        print(_machine(), flush=True)
        values, clients_cpu = _rounds(parties, options)
    cost = job_cost(serving.redis, own.answer)
    medians = {key: statistics.median(each) for key, each in values.items()}
    names = list(dict.fromkeys(party for party, _ in medians))
    Console(width=100).print(_table(names, medians))
    for name, reason in refused.items():
        print(f"{name}: not installable here: {reason}")
    print(f"first streamed text: {first_text * 1e3:.1f} ms beside the engine's own time")
    print(
        f"a job costs Redis {cost.scripts:.1f} script calls, {cost.publishes:.1f} publishes and "
        f"{cost.commands:.0f} commands, those of scripts, heartbeats and Celery's events included"
    )
    print(f"the clients used at most {clients_cpu:.0%} of a core")
    print(json.dumps(_summary(medians, first_text)))


def _rounds(parties: Sequence[Party], options: Options) -> tuple[Values, float]:
    """Measure each party in each round; return the values and the clients' largest CPU share."""
    values: Values = defaultdict(list)
    clients_cpu = 0.0
    with ExitStack() as suspended:
        for party in parties:
            _first_answer(party.answer)
            suspended.callback(party.resume)
            party.suspend()
        for party in [*parties] * options.rounds:
            party.resume()
            _first_answer(party.answer)
            for name, measure, figure, seen in _measured(party, options.seconds):
                values[name, measure].append(figure)
                clients_cpu = max(clients_cpu, seen.cpu)
            party.suspend()
    return values, clients_cpu


def _measured(party: Party, seconds: float) -> Iterable[tuple[str, str, float, Seen]]:
    for name, call in {party.name: party.answer, **party.others}.items():
        seen = _repeated(call, CLIENTS, seconds)
        yield name, "answer", seen.per_second, seen
        seen = _repeated(call, 1, seconds / 2)
        yield name, "p50", seen.p50_seconds, seen
    if party.submit:
        seen = _repeated(party.submit, CLIENTS, seconds)
        yield party.name, "submit", seen.per_second, seen
        # This job stands behind all others: when it ends, none is left for the next party's turn.
        _first_answer(party.answer)


def _repeated(call: Call, clients: int, seconds: float) -> Seen:
    seen = closed_loop(call.url, clients, seconds, call.body, call.expected)
    if seen.wrong or seen.statuses.keys() != {str(call.status)}:
        raise WrongAnswerError(f"{call.url}: {seen}")
    return seen


def _first_answer(call: Call) -> None:
    """Wait until a party gives the right answer."""
    with httpx.Client(timeout=ANSWER_SECONDS + 30) as client:

        def right() -> bool:
            response = client.post(call.url, json=call.body)
            return response.status_code == call.status and call.expected in response.text

        wait_until(right, FIRST_ANSWER_SECONDS, f"the first answer of {call.url}")


def _table(names: Sequence[str], medians: dict[tuple[str, str], float]) -> Table:
    """Return each party's figures, and in brackets ours relative to them."""
    table = Table("", *(f"{each}, ours x" for each in _HEADS), title="Ours beside its peers")
    for name in names:
        cells = []
        for measure in MEASURES:
            value = medians.get((name, measure))
            if value is None:
                cells.append("-")
                continue
            shown = f"{value * 1e3:.2f}" if measure == "p50" else f"{value:,.0f}"
            cells.append(f"{shown} ({medians['ours', measure] / value:.2f})")
        versions = " ".join(REQUIREMENTS.get(name, ())[:1])
        table.add_row(versions or name, *cells)
    return table


_HEADS = (f"submits/s, {CLIENTS} clients", f"answers/s, {CLIENTS} clients", "p50 ms, 1 client")


def _summary(medians: dict[tuple[str, str], float], first_text: float) -> dict[str, float | None]:
    """Return ours divided by theirs; None for a peer that did not run."""

    def ratio(measure: str, name: str) -> float | None:
        theirs = medians.get((name, measure))
        return round(medians["ours", measure] / theirs, 3) if theirs else None

    return {
        "submit_vs_celery": ratio("submit", "celery"),
        "answer_vs_litserve": ratio("answer", "litserve"),
        "answer_vs_celery": ratio("answer", "celery"),
        "p50_vs_celery": ratio("p50", "celery"),
        "p50_vs_litserve": ratio("p50", "litserve"),
        "first_text_ms": round(first_text * 1e3, 2),
    }


def _machine() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{now}; {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start"
