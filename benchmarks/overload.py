"""Ten times too much: accepted jobs end, the others are told so, and a look is still quick."""

import threading
import time

from benchmarks.clients import closed_loop
from benchmarks.load import Load, Seen
from benchmarks.serving import Json, Serving
from shared.jobs import JobState
from shared.ledger import Filter
from tests.chaos.misbehaviour import Deed

#: How long the model thinks, without this machine's cores: as with a GPU, there are too few of it.
MODEL_SECONDS = 0.1
#: Clients that each wait for the end of a job before they submit the next.
CLIENTS = 16
CAPACITY_SECONDS = 10.0
OVERLOAD_SECONDS = 60.0
TIMES = 10
#: Fewer than by default, so that the queue is full within seconds.
MOST_QUEUED = 1000
LOOKS_PER_SECOND = 20
TARGET_SECONDS = 0.05
#: After the load everything that was accepted ends within this time.
DRAIN_SECONDS = 600.0
_UNDER_WAY = (JobState.QUEUED, JobState.RUNNING)


def capacity(serving: Serving, question: Json) -> float:
    """Return the jobs per second that end while some clients submit one after the other."""
    # The first one waits for the model.
    serving.platform.submit("/inference/infer", wait=60, **question)
    url = str(serving.platform.http.base_url.join("/inference/infer?wait=30"))
    seen = closed_loop(url, CLIENTS, CAPACITY_SECONDS, question, '"succeeded"')
    if seen.wrong:
        raise AssertionError(f"not every job succeeded: {seen}")
    return seen.per_second


def measure_overload(serving: Serving) -> bool:
    """Print what happened, and return whether it was right."""
    question = serving.question(Deed.WORK, seconds=MODEL_SECONDS)
    usual = capacity(serving, question)
    url = str(serving.platform.http.base_url)
    done = serving.platform.submit("/inference/infer", wait=60, **question)
    load = Load(url, TIMES * usual, OVERLOAD_SECONDS, question)
    looks = sorted(_looks(serving, load, done["job_id"]))
    seen = load.seen()
    drain = drained(serving)
    lost = _not_succeeded(serving, seen)
    p50, p99 = looks[len(looks) // 2], looks[len(looks) * 99 // 100]
    print(
        f"capacity  {usual:.0f} jobs/s: {CLIENTS} clients, each waits for its job; "
        f"the model takes {MODEL_SECONDS:g} s"
    )
    print(
        f"overload  {sum(seen.answers.values()) / OVERLOAD_SECONDS:.0f} submits/s for "
        f"{OVERLOAD_SECONDS:g} s; answers: {dict(seen.answers)}"
    )
    print(f"accepted  {len(seen.accepted)}; not succeeded: {lost}; {drain:.1f} s to drain")
    print(
        f"look      p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms of {len(looks)} meanwhile; "
        "the load generators run on the same cores"
    )
    strange = seen.answers.keys() - {"200", "202", "429", "not sent"}
    if strange:
        print(f"strange   {sorted(strange)}")
    return not lost and not strange and "429" in seen.answers and p99 < TARGET_SECONDS


def _looks(serving: Serving, load: Load, job_id: str) -> list[float]:
    """Look at a job at a rate until the load ends; return how long each look took."""
    looks, pause = [], threading.Event()
    while load.running():
        started = time.perf_counter()
        serving.platform.http.get(f"/jobs/{job_id}").raise_for_status()
        looks.append(time.perf_counter() - started)
        pause.wait(1 / LOOKS_PER_SECOND)
    return looks


def drained(serving: Serving) -> float:
    """Wait until nothing is under way; return how long that took."""
    started, pause = time.monotonic(), threading.Event()
    while any(serving.ledger.page(Filter(state=state), limit=1)[0] for state in _UNDER_WAY):
        if time.monotonic() - started > DRAIN_SECONDS:
            break
        pause.wait(0.2)
    return time.monotonic() - started


def _not_succeeded(serving: Serving, seen: Seen) -> int:
    states = (serving.ledger.get(job_id).state for job_id in seen.accepted)
    return sum(state is not JobState.SUCCEEDED for state in states)
