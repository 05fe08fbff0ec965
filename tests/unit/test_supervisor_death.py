"""A supervisor that is killed leaves nothing behind, and lets go of its directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.data_directory import DataDirectory, StackRecord
from embedded.errors import InUseError
from embedded.health import HttpProbe
from embedded.service import Component
from tests.unit.test_supervisor import await_death

#: Starts a process that starts another, says both ids and its warden's, and waits to be killed.
SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from embedded.data_directory import DataDirectory
from embedded.process import Process
from embedded.warden import Warden

FAMILY = '''
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
'''

async def main(directory):
    with DataDirectory(directory).alone() as lock, Warden(keep_open=[lock]) as warden:
        log = directory / "family.log"
        family = Process([sys.executable, "-c", FAMILY], {}, log, warden)
        while not log.read_text():
            await asyncio.sleep(0.01)
        print(family.pid, log.read_text().strip(), warden.pid, flush=True)
        await family.wait()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("warden_dies_too", [False, True])
def test_a_killed_supervisor_leaves_no_process(tmp_path: Path, *, warden_dies_too: bool) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        leader, child, warden = map(int, supervisor.stdout.readline().split())
        if warden_dies_too:
            os.kill(warden, signal.SIGKILL)
            await_death(warden)
        supervisor.kill()
    await_death(leader)  # by its leash
    if warden_dies_too:
        os.kill(child, signal.SIGKILL)  # which nobody was left to do
    await_death(child)
    await_death(warden)
    with DataDirectory(tmp_path).alone():
        pass


def record(pid: int) -> StackRecord:
    url = "http://127.0.0.1:8009"
    api = Component(name="api", title="API", address=url, probe=HttpProbe(url=url), pid=pid)
    return StackRecord(pid=pid, hub="https://huggingface.co", components=(api,))


def test_a_directory_is_for_one_stack_and_says_where_that_runs(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "new")
    with directory.alone():
        directory.write(record(42))

        assert directory.running() == record(42)
        with pytest.raises(InUseError, match=r"process 42, API http://127\.0\.0\.1:8009"):
            directory.alone().__enter__()

    assert directory.running() is None


def test_the_record_of_a_stack_that_was_killed_counts_for_nothing(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.write(record(42))

    assert directory.running() is None


def test_credentials_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)

    assert directory.credentials() == DataDirectory(tmp_path).credentials()
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    directory.write(record(1))
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600
