"""The front while many jobs are queued: latency of a look, start-up and memory."""

import statistics
import time

import psutil

from benchmarks.stack import Stack
from tests.platform import Platform

QUEUED = 500
LOOKS = 1000


def measure_front(stack: Stack) -> None:
    """Print the percentiles of ``GET /jobs/{id}`` with jobs queued that nobody takes."""
    platform = stack.platform
    started = time.monotonic()
    job_ids = [_submit(platform) for _ in range(QUEUED)]
    submitted = time.monotonic() - started
    looks = sorted(_look(platform, job_ids[number % QUEUED]) for number in range(LOOKS))
    rss = psutil.Process(platform.pid("api")).memory_info().rss
    print(f"submits   {QUEUED / submitted:.0f}/s, one after the other")
    print(
        f"look      p50 {statistics.median(looks) * 1e3:.2f} ms, "
        f"p99 {looks[LOOKS * 99 // 100] * 1e3:.2f} ms with {QUEUED} jobs queued"
    )
    print(f"front     {rss / 1e6:.0f} MB")
    platform.stop("api")
    started = time.monotonic()
    platform.start("api")
    print(f"front     ready {time.monotonic() - started:.1f} s after its start")


def _submit(platform: Platform) -> str:
    # No GPU worker runs here: the jobs stay in the queue.
    job = platform.submit(
        "/inference/infer", task="text-generation", model_name="m", data={"inputs": "x"}
    )
    return str(job["job_id"])


def _look(platform: Platform, job_id: str) -> float:
    started = time.perf_counter()
    platform.http.get(f"/jobs/{job_id}").raise_for_status()
    return time.perf_counter() - started
