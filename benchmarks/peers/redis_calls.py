"""What a job of this platform costs Redis while the worker is busy."""

from collections import Counter
from dataclasses import dataclass

from redis import Redis

from benchmarks.clients import closed_loop
from benchmarks.peers.parties import Call
from shared.ledger import connect
from shared.settings import RedisSettings

CLIENTS = 32
SECONDS = 3.0


@dataclass(frozen=True)
class JobCost:
    """Calls per job, with heartbeats and Celery's events; a script's own commands count, too."""

    scripts: float
    publishes: float
    commands: float


def job_cost(settings: RedisSettings, answer: Call) -> JobCost:
    """Let clients wait for answers, and divide Redis' calls meanwhile by the number of answers."""
    with connect(settings) as redis:
        before = _calls(redis)
        seen = closed_loop(answer.url, CLIENTS, SECONDS, answer.body, answer.expected)
        calls = _calls(redis)
        calls.subtract(before)
    jobs = sum(seen.statuses.values())
    return JobCost(
        scripts=(calls["evalsha"] + calls["eval"]) / jobs,
        publishes=calls["publish"] / jobs,
        commands=calls.total() / jobs,
    )


def _calls(redis: Redis) -> Counter[str]:
    stats = redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})
