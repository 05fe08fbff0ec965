"""``python -m tests.branch_storm``: uploads, while their workers and lakeFS are killed at random.

Jobs are cancelled and queued again in between. Afterwards no branch of a job may be left, those of
people must be as they were, and no upload may have lost its branch while it ran.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import redis

from embedded.redis import redis_command
from shared.errors import ConflictError
from shared.jobs import JobKind, JobState
from shared.lakefs.listing import RepositoryListing
from shared.lakefs.store import LakeFSStore
from shared.ledger import Ledger, NewJob, OwnedBranches
from shared.queue import uploads_of
from shared.settings import LakeFSSettings, LedgerSettings, RedisSettings
from tests.processes import free_port, listens, start, stop, wait_until

HOST = "storm"
WORKERS = ("cpu-1", "cpu-2", "cpu-3")
REPOS = ("storm-one", "storm-two")
MODELS, FILES, FILE_BYTES = 16, 40, 20_000
#: Uploads that wait or run at any time, so that each kill hits some.
AT_ONCE = 8
SETTLE_SECONDS = 240
READY = "worker ready"


@dataclass
class Outcome:
    """What a storm did, and what it left."""

    kills: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    #: Branches that the sweepers deleted; the rest was deleted by the jobs themselves.
    swept: int = 0
    #: Recorded when the last process was killed.
    recorded: int = 0
    #: From the end of the last job until no branch was recorded.
    seconds: float = 0
    #: All that must be empty.
    wrong: list[str] = field(default_factory=list)

    def figures(self) -> str:
        """Return the figures in one line."""
        return (
            f"kills {dict(self.kills)}, {dict(self.asked)}, jobs {dict(self.ended)}, "
            f"{self.swept} branches swept, {self.recorded} recorded at the last kill, all gone "
            f"{self.seconds:.1f} s after the last job, {len(self.wrong)} wrong"
        )


class Storm:
    """A Redis, an embedded lakeFS on one data directory, and three CPU workers of one host."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._draw = random.Random(seed)
        self._redis_port, self._lakefs_port = free_port(), free_port()
        self._redis = RedisSettings.model_validate(
            {"url": f"redis://127.0.0.1:{self._redis_port}/0"}
        )
        self._lakefs = LakeFSSettings.model_validate(
            {
                "endpoint": f"http://127.0.0.1:{self._lakefs_port}",
                "access_key_id": "test",
                "secret_access_key": uuid.uuid4().hex,
            }
        )
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        #: How often a process' log says that it is ready, by its predecessors.
        self._starts: dict[str, int] = {}
        self._up: set[str] = set()
        #: The model of each job.
        self._jobs: dict[str, str] = {}
        self._revived: set[str] = set()
        self.outcome = Outcome()

    def run(self, kills: int) -> Outcome:
        """Kill that often, then let everything end and look at what is left."""
        self._stage()
        with self._started() as ledger:
            persons = self._branches_of_people()
            while self.outcome.kills.total() < kills:
                wait_until(
                    lambda: self._uploading(ledger), SETTLE_SECONDS, "a job has made its branch"
                )
                time.sleep(self._draw.uniform(0, 0.5))
                self._disturb(ledger)
                self._supervise()
            self._settle(ledger)
            self._judge(ledger, persons)
        return self.outcome

    # ── processes ────────────────────────────────────────────────────────────

    @contextmanager
    def _started(self) -> Iterator[Ledger]:
        try:
            for name in ("redis", "lakefs"):
                self._launch(name)
            wait_until(lambda: listens(self._redis_port) and listens(self._lakefs_port))
            client = redis.Redis.from_url(self._redis.url.get_secret_value(), decode_responses=True)
            self._branches = OwnedBranches(client, LedgerSettings())
            # There is no MLflow here: nobody compares versions.
            self._branches.take_turn(86400)
            for name in WORKERS:
                self._launch(name)
            yield Ledger(client, LedgerSettings())
            client.close()
        finally:
            for name in reversed(list(self._processes)):
                stop(self._processes[name])

    def _launch(self, name: str) -> None:
        self._starts[name] = self._log_text(name).count(READY)
        self._processes[name] = start(
            self._command(name), log=self._directory / f"{name}.log", env=self._env()
        )

    def _command(self, name: str) -> list[str]:
        if name == "redis":
            return redis_command(self._redis_port, self._directory)
        if name == "lakefs":
            place = ["--port", str(self._lakefs_port), "--data", str(self._directory / "lakefs")]
            return [sys.executable, "-m", "embedded.lakefs", *place]
        return [sys.executable, "-m", "workers", "cpu", "--name", f"{name}@{HOST}"]

    def _env(self) -> dict[str, str]:
        return {
            "REDIS_URL": self._redis.url.get_secret_value(),
            "LAKEFS_ENDPOINT": self._lakefs.endpoint,
            "LAKEFS_ACCESS_KEY_ID": self._lakefs.access_key_id,
            "LAKEFS_SECRET_ACCESS_KEY": self._lakefs.secret_access_key.get_secret_value(),
            "STORAGE_HOST_ID": HOST,
            "STORAGE_STAGING_DIR": str(self._directory / "staging"),
            "STORAGE_RESERVE_BYTES": "0",
            "LEDGER_LEASE_SECONDS": "3",
            "LEDGER_BACKOFF_SECONDS": "0.2",
            "LEDGER_OUTAGE_BACKOFF_MAX_SECONDS": "1",
            "LEDGER_OUTAGE_BUDGET_SECONDS": "86400",
            "LEDGER_MAX_CRASHES": "1000",
            "LEDGER_QUARANTINE_CRASHES": "1000",
            "WORKER_DRAIN_SECONDS": "1",
            "WORKER_BRANCH_SWEEP_SECONDS": "0.5",
        }

    def _kill(self, name: str) -> None:
        process = self._processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self._up.discard(name)
            self.outcome.kills[name.partition("-")[0]] += 1

    def _supervise(self) -> None:
        """Start again what was killed; lakeFS not always at once."""
        for name, process in self._processes.items():
            if process.poll() is not None and (name != "lakefs" or self._draw.random() < 0.5):
                self._launch(name)

    def _uploading(self, ledger: Ledger) -> bool:
        """Return whether a job has a branch, and a worker and lakeFS are up to go on with it."""
        self._supervise()
        self._keep_busy(ledger)
        is_up = listens(self._lakefs_port) and self._ready()
        return bool(is_up and self._branches.of_jobs())

    def _ready(self) -> list[str]:
        """Return the workers that take jobs."""
        for name in WORKERS:
            if name not in self._up and self._log_text(name).count(READY) > self._starts[name]:
                self._up.add(name)
        return [name for name in WORKERS if name in self._up]

    def _log_text(self, name: str) -> str:
        log = self._directory / f"{name}.log"
        return log.read_text() if log.exists() else ""

    # ── what happens ─────────────────────────────────────────────────────────

    def _stage(self) -> None:
        for number in range(MODELS):
            model = self._directory / "staging" / f"model-{number}"
            model.mkdir(parents=True)
            for file in range(FILES):
                (model / f"{file}.bin").write_bytes(os.urandom(FILE_BYTES))

    def _branches_of_people(self) -> dict[str, dict[str, str]]:
        """Make branches that only look like those of jobs; return all heads but the default's."""
        with closing(LakeFSStore(self._lakefs)) as store:
            for repo in REPOS:
                store.ensure_repository(repo)
                for name in ("feature", "job-mine", f"job-{uuid.uuid4()}", "keep-model-v1-0123"):
                    store.ensure_branch(repo, name)
        return self._heads()

    def _heads(self) -> dict[str, dict[str, str]]:
        with closing(RepositoryListing(self._lakefs)) as listing:
            return {
                repo: {k: v for k, v in listing.branches(repo, "").items() if k != "main"}
                for repo in REPOS
            }

    def _keep_busy(self, ledger: Ledger) -> None:
        in_use = {model for job, model in self._jobs.items() if not ledger.ended(job)}
        free = sorted({f"model-{number}" for number in range(MODELS)} - in_use)
        for _ in range(AT_ONCE - len(in_use)):
            # A staged model must not change while it is uploaded.
            model = free.pop(self._draw.randrange(len(free)))
            # Other files each time: a model that is there already needs no branch for long.
            changed = self._directory / "staging" / model / f"{self._draw.randrange(FILES)}.bin"
            changed.write_bytes(os.urandom(FILE_BYTES))
            request = {"repo_name": self._draw.choice(REPOS), "local_model_name": model}
            job = NewJob(
                JobKind.UPLOAD, request, queue=uploads_of(HOST), model=model, max_attempts=1000
            )
            self._jobs[ledger.accept(job)[0].id] = model

    def _disturb(self, ledger: Ledger) -> None:
        act = self._draw.choices(("worker", "lakefs", "cancel", "both", "revive"), (2, 4, 2, 3, 1))
        match act[0]:
            case "worker":
                self._kill(self._draw.choice(self._ready()))
            case "lakefs":
                self._kill("lakefs")
            case "cancel":
                self._cancel(ledger)
            case "both":
                self._kill(self._draw.choice([*self._ready(), "lakefs"]))
                self._cancel(ledger)
            case _:
                self._revive(ledger)

    def _cancel(self, ledger: Ledger) -> None:
        """Cancel jobs that have a branch."""
        for branch in self._branches.of_jobs()[:2]:
            with suppress(ConflictError):
                ledger.cancel(branch.job_id)
                self.outcome.asked["cancels"] += 1

    def _revive(self, ledger: Ledger) -> None:
        in_use = {model for job, model in self._jobs.items() if not ledger.ended(job)}
        cancelled = [
            job
            for job, model in self._jobs.items()
            if model not in in_use and ledger.get(job).state is JobState.CANCELLED
        ]
        for job_id in cancelled[-1:]:
            ledger.revive(job_id)
            self._revived.add(job_id)
            self.outcome.asked["revived"] += 1

    # ── the end ──────────────────────────────────────────────────────────────

    def _settle(self, ledger: Ledger) -> None:
        self.outcome.recorded = len(self._branches.of_jobs())

        def all_ended() -> bool:
            self._supervise()
            return all(ledger.ended(job) for job in self._jobs)

        wait_until(all_ended, SETTLE_SECONDS, "all jobs have ended")
        ended_at = time.monotonic()
        wait_until(lambda: not self._branches.of_jobs(), SETTLE_SECONDS, "all branches are swept")
        self.outcome.seconds = time.monotonic() - ended_at

    def _judge(self, ledger: Ledger, persons: dict[str, dict[str, str]]) -> None:
        outcome, wrong = self.outcome, self.outcome.wrong
        if (heads := self._heads()) != persons:
            wrong.append(f"branches are {heads}, and were {persons}")
        jobs = {job_id: ledger.get(job_id) for job_id in self._jobs}
        outcome.ended.update(job.state.value for job in jobs.values())
        wrong += [f"{job.id}: {job.error}" for job in jobs.values() if job.state is JobState.FAILED]
        for name in WORKERS:
            for line in self._log(name):
                event = line.get("event")
                if event == "job left" and line.get("error") == "unavailable":
                    wrong.append(f"a run lost its branch: {line}")
                if event == "branch deleted":
                    outcome.swept += 1
                    job = jobs[str(line["branch"]).partition("/job-")[2]]
                    deleted_at = datetime.fromisoformat(str(line["timestamp"]))
                    if job.id not in self._revived and (
                        job.finished_at is None or deleted_at < job.finished_at
                    ):
                        wrong.append(f"swept before its job's end: {line}")

    def _log(self, name: str) -> Iterator[dict[str, object]]:
        for line in self._log_text(name).splitlines():
            with suppress(ValueError):  # a line that a kill cut off, or Celery's banner
                yield json.loads(line)


def main() -> int:
    """Run one storm and show its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.branch_storm", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parsed = parser.parse_args()
    sys.stdout.write(f"seed {parsed.seed}\n")
    with tempfile.TemporaryDirectory(prefix="storm-") as directory:
        outcome = Storm(Path(directory), parsed.seed).run(parsed.kills)
    sys.stdout.write("\n".join([outcome.figures(), *outcome.wrong, ""]))
    return int(bool(outcome.wrong))


if __name__ == "__main__":
    sys.exit(main())
