"""Processes that tests start: on free ports, waited for by what they answer, ended by id."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    true: Callable[[], object], timeout_seconds: float = 60, what: str = "condition"
) -> None:
    """Look at a condition of another process until it holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_seconds} s")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Return whether something accepts connections on a port of the loopback address."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def start(
    arguments: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )


def stop(process: subprocess.Popen[bytes], timeout_seconds: float = 30) -> None:
    """End a process politely, then not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    *,
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = 300,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the length of a block, entered when it listens."""
    process = start(arguments, log=log, env=env)
    try:

        def up() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{arguments[0]} ended at once:\n{log.read_text()[-4000:]}")
            return listens(port)

        wait_until(up, timeout_seconds, what=f"{' '.join(arguments[:4])} listens on {port}")
        yield process
    finally:
        stop(process)
