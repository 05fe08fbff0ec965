"""``python -m tests.outages``: services are away for long, with the settings that users have.

Each service is away for 10 s and for 60 s in the middle of each kind of job that uses it; then all
services are away for ``--minutes``, with jobs of all kinds under way and the outage budget as it is
by default. A line for each job; status 1 if one did not end right, or used up an attempt.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from embedded.redis import redis_command
from shared.jobs import Job, JobState
from shared.ledger import connect
from shared.settings import LedgerSettings, RedisSettings
from tests.outage_scene import CASES, Scene, outage_scene
from tests.processes import free_port, running
from tests.servers import lakefs_running, mlflow_running


def each_alone(scene: Scene, seconds: float, cases: Sequence[str]) -> bool:
    """Let each case's service be away in the middle of its job; return whether all ended right."""
    right = True
    for case in cases:
        service, after_bytes = CASES[case]
        proxy = scene.proxies[service]
        proxy.strike(proxy.take_away, after_bytes)
        job_id = scene.submit(case)
        if not proxy.struck.wait(120):
            raise RuntimeError(f"{service} was not in the middle of {case}")
        time.sleep(seconds)
        proxy.bring_back()
        back = time.monotonic()
        job = scene.ended(job_id)
        right &= _tell(f"{service} away {seconds:g} s", case, job, time.monotonic() - back)
    return right


def all_together(scene: Scene, seconds: float) -> bool:
    """Let all services be away with a job of each kind under way."""
    jobs = {case: scene.submit(case) for case in CASES}
    time.sleep(0.2)
    for proxy in scene.proxies.values():
        proxy.take_away()
    time.sleep(seconds)
    waiting = scene.ledger.counts().waiting
    _say(f"after {seconds:g} s without any service, jobs wait: {dict(waiting)}")
    for proxy in scene.proxies.values():
        proxy.bring_back()
    back, right = time.monotonic(), True
    for case, job_id in jobs.items():
        job = scene.ended(job_id)
        right &= _tell(f"all away {seconds:g} s", case, job, time.monotonic() - back)
    return right


def _tell(outage: str, case: str, job: Job, seconds: float) -> bool:
    right = job.state is JobState.SUCCEEDED and job.attempts == 1
    detail = job.error.detail if job.error else f"{seconds:.1f} s after the services were back"
    mark = "ok   " if right else "WRONG"
    _say(f"{mark} {outage}: {case}: {job.state.value}, attempt {job.attempts}, {detail}")
    return right


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the outages that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.outages", description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="*", default=[10, 60])
    parser.add_argument("--minutes", type=float, default=0, help="of all services together")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="of the single outages")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outages-") as name:
        directory, port = Path(name), free_port()
        with (
            running(redis_command(port, directory), port=port, log=directory / "redis.log"),
            mlflow_running(directory) as mlflow,
            lakefs_running(directory) as lakefs,
        ):
            url = f"redis://127.0.0.1:{port}/0"
            client = connect(RedisSettings.model_validate({"url": url}))
            ledger = LedgerSettings()
            with outage_scene(directory, client, url, mlflow, lakefs, ledger) as scene:
                ends = [each_alone(scene, each, options.cases) for each in options.seconds]
                if options.minutes:
                    ends.append(all_together(scene, options.minutes * 60))
            client.close()
    return 0 if all(ends) else 1


if __name__ == "__main__":
    sys.exit(main())
