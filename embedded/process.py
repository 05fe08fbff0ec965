"""One process of the stack, from start to end, with all that it starts in turn."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedded.warden import Warden

_LEASH = Path(__file__).with_name("leash.py")
#: Put before the module search path, so that `python -m api` works from any directory.
_PACKAGES = Path(__file__).resolve().parent.parent


class Process:
    """A child in a session of its own, so that its process group is all that it started.

    To be created in the thread that lives longest: the kernel cuts a leash when the thread that
    forked ends, not when the whole process does.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], log: Path, warden: Warden
    ) -> None:
        """Start it; what it prints goes to the end of the log."""
        leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())]
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(env),
                start_new_session=True,
            )
        self._warden = warden
        warden.watch(self.pid)
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._await_end, name=f"wait {self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process' id, which is also that of its group."""
        return self._popen.pid

    @property
    def succeeded(self) -> bool:
        """Whether it has ended, and well."""
        return self._popen.returncode == 0

    async def wait(self) -> str:
        """Wait for the end and say how it came."""
        await self._ended.wait()
        code = self._popen.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    async def stop(self, grace_seconds: float) -> None:
        """End it politely, then not; and in any case whatever it left in its group."""
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            self._popen.send_signal(signal.SIGTERM)
            async with asyncio.timeout(grace_seconds):
                await self._ended.wait()
        self.kill()
        await self._ended.wait()
        self._warden.forget(self.pid)

    def kill(self) -> None:
        """End the whole group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _await_end(self) -> None:
        self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop may have gone
            self._loop.call_soon_threadsafe(self._ended.set)


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **env}
