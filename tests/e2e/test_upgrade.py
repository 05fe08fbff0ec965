"""A stack of commit 041e199 is stopped, updated and started."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from embedded.redis import redis_command
from shared.jobs import JobState
from shared.ledger import Ledger, connect, prepare_ledger
from shared.settings import LedgerSettings, RedisSettings
from tests.claims import download
from tests.old_ledger import NAMES, OLD_PREFIX, OldRedis
from tests.processes import free_port, running, start, stop, wait_until

ENDED = {"succeeded": 300, "failed": 100, "cancelled": 100}
#: The queued ones are copies of the job of this name.
QUEUED, RUNNING = {"large": 200}, {"running": 20}


class Upgraded:
    """The Redis of an old stack, and processes of this version on it."""

    def __init__(self, directory: Path, redis_port: int) -> None:
        url = f"redis://127.0.0.1:{redis_port}/0"
        self.directory = directory
        self.client = connect(RedisSettings.model_validate({"url": url}))
        self.old = OldRedis(self.client, OLD_PREFIX)
        self.ledger = Ledger(self.client, LedgerSettings())
        self.api_port = free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.env = os.environ | {
            "REDIS_URL": url,
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.api_port),
            "LIFECYCLE_API_URL": self.url,
            "MEDIA_FILES_URL": str(directory / "files"),
            "STORAGE_STAGING_DIR": str(directory / "staging"),
            "SCRIPTED_SECONDS": "0.02",
        }

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Run an API and two workers for the length of a block."""
        command = [sys.executable, "-m", "api"]
        log = self.directory / "api.log"
        with ExitStack() as stack:
            stack.enter_context(running(command, port=self.api_port, log=log, env=self.env))
            for number in (1, 2):
                worker = self.start_worker(f"cpu{number}@new")
                stack.callback(stop, worker)
            yield

    def start_worker(self, name: str) -> "subprocess.Popen[bytes]":
        """Start a worker whose downloads do nothing."""
        command = [sys.executable, "-m", "tests.scripted_worker", "cpu", "--name", name]
        return start(command, log=self.directory / f"{name}.log", env=self.env)

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        return (self.directory / f"{name}.log").read_text()

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            env=self.env,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )

    def all_ended(self, ids: list[str]) -> bool:
        """Return whether jobs have ended; one that is not adopted counts as ended."""
        return all(self.ledger.ended(each) for each in ids)


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Upgraded]:
    """A Redis of its own: Celery's lists of that version have no prefix."""
    port = free_port()
    command = redis_command(port, tmp_path)
    with running(command, port=port, log=tmp_path / "redis.log"):
        upgraded = Upgraded(tmp_path, port)
        yield upgraded
        upgraded.client.close()


def test_every_job_ends_once_and_what_had_ended_is_read_as_before(upgraded: Upgraded) -> None:
    old, ledger = upgraded.old, upgraded.ledger
    ended = {name: old.copies(name, number) for name, number in ENDED.items()}
    queued, was_running = ([*old.copies(*each)] for each in (*QUEUED.items(), *RUNNING.items()))
    with upgraded.processes():
        with httpx.Client(base_url=upgraded.url, timeout=60) as http:
            for name, ids in ended.items():
                page = http.get("/jobs", params={"model": name, "limit": 500}).json()["jobs"]
                states = {job["job_id"]: job["state"] for job in page}
                assert states.items() >= dict.fromkeys(ids, name).items()
            succeeded = http.get(f"/jobs/{ended['succeeded'][0]}").json()
            assert succeeded["result"] == {"files": [1, 2]}
            failed = http.get(f"/jobs/{ended['failed'][0]}").json()
            assert failed["error"]["detail"] == "the hub does not answer"
        wait_until(lambda: upgraded.all_ended(queued + was_running), what="the jobs have ended")
    jobs = [ledger.get(each) for each in queued + was_running]
    assert Counter(job.state for job in jobs) == {JobState.SUCCEEDED: 220}
    # A claim raises the fence, so each job was claimed once by this version.
    assert [job.fence for job in jobs] == [1] * 200 + [2] * 20


def test_an_old_worker_that_still_runs_is_named_and_finds_no_new_job(upgraded: Upgraded) -> None:
    held = NAMES["held"]
    with upgraded.processes():
        answer = httpx.get(f"{upgraded.url}/jobs/{held}", timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "job_not_adopted")

        said = json.loads(upgraded.run("client.cli", "doctor", "--json").stdout)
        found = {each["part"]: each["detail"] for each in said}
        assert "cpu@alive" in found["Workers of an older version"]

        left = upgraded.old.keys()
        new = upgraded.ledger.accept(download("new"))[0].id
        wait_until(lambda: upgraded.ledger.ended(new), what="the new job has ended")
        assert upgraded.old.keys() == left, "nothing for the old worker"
        assert new not in str([upgraded.client.dump(key) for key in left])

        upgraded.client.delete(f"{OLD_PREFIX}:worker:cpu@alive")
        wait_until(lambda: upgraded.client.exists(f"{OLD_PREFIX}:2:job:{held}"), what="adoption")
        wait_until(lambda: upgraded.ledger.ended(held), what="the job of the old worker")
    assert upgraded.ledger.get(held).state is JobState.SUCCEEDED


def test_a_process_of_another_schema_says_why_it_does_not_start(upgraded: Upgraded) -> None:
    prepare_ledger(upgraded.client, LedgerSettings())
    upgraded.client.set(f"{OLD_PREFIX}:schema", 3)
    worker = upgraded.start_worker("cpu@old")
    assert worker.wait(60) == 1
    api = upgraded.run("api")
    assert api.returncode == 1
    for said in (upgraded.log("cpu@old"), api.stderr):
        assert "a later version of the platform uses this Redis (schema 3, here 2)" in said
