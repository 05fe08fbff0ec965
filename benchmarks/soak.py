"""Half of what the stack can do, for long: memory, descriptors and keys must not creep up."""

import statistics
import threading
from collections import defaultdict
from collections.abc import Iterator

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.load import Load
from benchmarks.overload import capacity, drained
from benchmarks.serving import Serving
from shared.ledger import connect
from tests.chaos.misbehaviour import Deed

#: So short that ended jobs are forgotten as fast as new ones come.
RETENTION_SECONDS = 30.0
SAMPLE_SECONDS = 5.0
#: Growth within the second half.
MOST_GROWTH = 0.10
#: Of counts, growth by so few is none: one more connection that a pool keeps.
SLACK = 3
#: Before the soak, more than the front can take, and of work so slow that it queues up: every pool
#: has what it will ever need. (With more queued than the ledger's window, a worker hints the next
#: jobs itself, and keeps the connections that it opens for that.)
HEAT_SECONDS = 5.0
HEAT_TIMES = 4
HEAT_MODEL_SECONDS = 0.05
PROCESSES = ("api", "cpu", "gpu", "redis")

#: Samples by what was measured: ``api RSS``, ``api descriptors``, ``redis keys``.
Series = dict[str, list[float]]


def measure_soak(serving: Serving, minutes: float) -> bool:
    """Print how everything grew, and return whether it was little enough."""
    question = serving.question(Deed.ECHO)
    rate = capacity(serving, question) / 2
    _heat(serving, rate)
    load = Load(str(serving.platform.http.base_url), rate, minutes * 60, question, 1)
    series = _sample(serving, load)
    seen = load.seen()
    console, table = Console(), Table("what", "begin", "half", "end", "growth", title="Soak")
    right = True
    for name, values in series.items():
        half, end = _second_half(values)
        growth = end / half - 1 if half else 0.0
        fine = growth <= MOST_GROWTH or ("RSS" not in name and end - half <= SLACK)
        right = right and fine
        colour = "green" if fine else "red"
        figures = [f"{value:,.0f}" for value in (values[0], half, end)]
        table.add_row(name, *figures, f"[{colour}]{growth:+.1%}")
    console.print(table)
    console.print(f"{rate:.0f} jobs/s for {minutes:g} min; answers: {dict(seen.answers)}")
    return right and seen.answers.keys() <= {"200", "202"}


def _heat(serving: Serving, rate: float) -> None:
    slow = serving.question(Deed.WORK, seconds=HEAT_MODEL_SECONDS)
    Load(str(serving.platform.http.base_url), HEAT_TIMES * rate, HEAT_SECONDS, slow).seen()
    drained(serving)


def _sample(serving: Serving, load: Load) -> Series:
    """Look at everything from time to time until the load ends."""
    series: Series = defaultdict(list)
    redis, pause = connect(serving.redis), threading.Event()
    while load.running():
        for name, value in _look(serving):
            series[name].append(value)
        series["redis keys"].append(redis.dbsize())
        pause.wait(SAMPLE_SECONDS)
    redis.close()
    return series


def _look(serving: Serving) -> Iterator[tuple[str, float]]:
    for name in PROCESSES:
        process = psutil.Process(serving.platform.pid(name))
        yield f"{name} RSS MB", process.memory_info().rss / 1e6
        # A client's connections are the client's to close: a busy machine has it open more.
        port = serving.platform.api_port
        clients = sum(each.laddr.port == port for each in process.net_connections("tcp"))
        yield f"{name} descriptors", process.num_fds() - clients


def _second_half(values: list[float]) -> tuple[float, float]:
    """Return the level at the beginning and at the end of the second half."""
    half = values[len(values) // 2 :]
    some = max(1, len(half) // 4)
    return statistics.median(half[:some]), statistics.median(half[-some:])
