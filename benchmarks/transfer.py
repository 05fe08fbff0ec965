"""A file of 2 GB through download and upload, beside ``cp``; and what the worker's memory does."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.stack import Stack
from embedded.hub.repository import publish

MIB = 1024 * 1024
SIZE_BYTES = 2048 * MIB


def measure_transfer(stack: Stack) -> None:
    """Print MB/s of cp, download and upload, and the growth of the worker's RSS."""
    source = _write_model(stack.directory / "large")
    publish(stack.hub.root, "bench/large", source)
    worker = psutil.Process(stack.platform.pid("cpu"))
    before = worker.memory_info().rss

    copied = _seconds(
        lambda: subprocess.run(
            ["cp", source / "model.safetensors", stack.directory / "copy"], check=True
        )
    )
    (stack.directory / "copy").unlink()
    downloaded = _seconds(lambda: stack.platform.done("/models/download", model_name="bench/large"))
    uploaded = _seconds(
        lambda: stack.platform.done(
            "/models/upload_to_lakefs", repo_name="bench", local_model_name="bench_large"
        )
    )
    for name, seconds in (("cp", copied), ("download", downloaded), ("upload", uploaded)):
        print(f"{name:9} {SIZE_BYTES / 1e6 / seconds:7.0f} MB/s  {seconds:6.1f} s")
    print(f"worker's RSS grew by {(_peak_rss(worker.pid) - before) / 1e6:.0f} MB at the most")


def _write_model(directory: Path) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    block = bytearray(os.urandom(8 * MIB))
    with (directory / "model.safetensors").open("wb") as file:
        for number in range(SIZE_BYTES // len(block)):
            block[:8] = number.to_bytes(8)
            file.write(block)
    return directory


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _peak_rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
