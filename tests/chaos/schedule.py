"""What is going to happen, and when: all of it follows from the seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.chaos.misbehaviour import ENGINE, TASK, Deed

#: Nothing fails before this time, nor within as much of the end.
CALM_SECONDS = 2.0


class FaultKind(StrEnum):
    """What is done to the stack; a word and, where there are several, its place."""

    KILL_CPU = "kill cpu"
    KILL_GPU = "kill gpu"
    KILL_API = "kill api"
    KILL_REDIS = "kill redis"
    STOP_CPU = "stop cpu"
    STOP_GPU = "stop gpu"
    STOP_API = "stop api"
    STOP_REDIS = "stop redis"
    TERM_CPU = "term cpu"
    TERM_GPU = "term gpu"
    TERM_API = "term api"
    FLUSH_BROKER = "flush broker"
    CUT_BROKER = "cut broker"
    EXTRA_HINTS = "extra hints"
    HUB_STATUS = "status hub"
    HUB_CUT = "cut hub"
    # Not at MLflow, whose client takes a 200 without a body for an empty answer.
    HUB_BEHEAD = "behead hub"
    HUB_HANG = "hang hub"
    LAKEFS_STATUS = "status lakefs"
    LAKEFS_CUT = "cut lakefs"
    LAKEFS_BEHEAD = "behead lakefs"
    LAKEFS_HANG = "hang lakefs"
    LAKEFS_DROP_ANSWER = "drop_answer lakefs"
    MLFLOW_STATUS = "status mlflow"
    MLFLOW_CUT = "cut mlflow"
    MLFLOW_HANG = "hang mlflow"
    MLFLOW_DROP_ANSWER = "drop_answer mlflow"
    API_CUT = "cut api"
    API_DROP_ANSWER = "drop_answer api"
    FULL_STAGING = "full staging"
    FULL_SNAPSHOTS = "full snapshots"
    #: Jobs that misbehave.
    JOB_HANGS = "job hangs"
    JOB_SEGFAULTS = "job segfaults"
    JOB_EXHAUSTS = "job exhausts"
    JOB_EXITS = "job exits"


POISON = {
    FaultKind.JOB_HANGS: Deed.HANG,
    FaultKind.JOB_SEGFAULTS: Deed.SEGFAULT,
    FaultKind.JOB_EXHAUSTS: Deed.EXHAUST,
    FaultKind.JOB_EXITS: Deed.EXIT,
}

#: How a job that does a deed must end, by the code of its error.
ENDS = {
    Deed.HANG: "deadline_exceeded",
    Deed.SEGFAULT: "crashed",
    Deed.EXHAUST: "out_of_memory",
    Deed.EXIT: "internal_error",
}


@dataclass(frozen=True)
class PlannedFault:
    """One fault."""

    at: float
    kind: FaultKind
    #: How long it lasts, where it does.
    seconds: float
    #: Which of several processes, or how many exchanges, hints or keys.
    number: int


@dataclass(frozen=True)
class Submission:
    """One submit by one client."""

    at: float
    #: What the job is called in the report.
    work: str
    call: str
    body: dict[str, Any]
    key: str
    #: The client cancels so many seconds after its submit was answered.
    cancel_after: float | None = None
    #: The client sends it twice at the same time.
    twice: bool = False
    #: The client goes away before the answer, and asks again later.
    abandons: bool = False
    #: Seconds that the client asks the front to hold the answer.
    wait: float = 0
    #: What the job does wrong, if it does.
    deed: Deed | None = None

    @property
    def streams(self) -> bool:
        """Whether the client follows the job's events."""
        return bool(self.body.get("stream"))


@dataclass(frozen=True)
class Catalog:
    """What there is to be worked on; only the commits differ between two runs of a seed."""

    #: What the names of repositories and of registered models start with.
    unique: str
    #: Models at the hub that nobody has downloaded.
    fresh: Sequence[str]
    #: Models in the staging area.
    staged: Sequence[str]
    #: Registered chat models, and the one that does deeds.
    chats: Sequence[str]
    deeds: str
    #: Where the chat models lie: repository and path are the model's name.
    commits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Schedule:
    """A whole run."""

    submissions: list[Submission]
    faults: list[PlannedFault]


#: Jobs of each sort, of a hundred.
_MIX = {
    "echo": 34,
    "infer": 14,
    "stream": 8,
    "download": 14,
    "batch": 3,
    "upload": 14,
    "register": 13,
}
#: Of the good jobs: cancelled, sent twice, abandoned.
_CANCELLED, _TWICE, _ABANDONED, _WAITED = 0.06, 0.08, 0.06, 0.1
_TEXTS = ("the quick brown fox", "a model that nobody asks", "lazy dog", "zażółć gęślą jaźń")


def make_schedule(
    seed: int, seconds: float, jobs: int, faults: int, lease_seconds: float, catalog: Catalog
) -> Schedule:
    """Draw a run of so many jobs and faults."""
    planned = _faults(random.Random(f"faults {seed}"), seconds, faults, lease_seconds)
    drawn = _Submissions(random.Random(f"jobs {seed}"), seed, catalog)
    submissions = drawn.good(jobs, seconds)
    submissions += [
        drawn.poison(fault.at, POISON[fault.kind]) for fault in planned if fault.kind in POISON
    ]
    return Schedule(
        sorted(submissions, key=lambda each: each.at),
        [fault for fault in planned if fault.kind not in POISON],
    )


def _faults(
    rng: random.Random, seconds: float, count: int, lease_seconds: float
) -> list[PlannedFault]:
    """Deal the kinds like cards, so that all come before one comes again."""
    deck: list[FaultKind] = []
    planned = []
    step = (seconds - 2 * CALM_SECONDS) / max(count, 1)
    for number in range(count):
        if not deck:
            deck = rng.sample(list(FaultKind), len(FaultKind))
        at = CALM_SECONDS + step * (number + rng.random())
        kind = deck.pop()
        planned.append(
            PlannedFault(at, kind, _lasts(rng, kind, lease_seconds), rng.randrange(1, 9))
        )
    return planned


def _lasts(rng: random.Random, kind: FaultKind, lease_seconds: float) -> float:
    if kind in {FaultKind.STOP_CPU, FaultKind.STOP_GPU}:
        return lease_seconds * rng.uniform(0.2, 1.8)  # some outsleep their leases
    return min(lease_seconds, 8) * rng.uniform(0.2, 1)


class _Submissions:
    """Draws submits."""

    def __init__(self, rng: random.Random, seed: int, catalog: Catalog) -> None:
        self._rng = rng
        self._seed = seed
        self._catalog = catalog
        self._count = 0
        self._fresh = iter(catalog.fresh)
        self._downloaded: list[str] = []
        self._uploads = 0

    def good(self, count: int, seconds: float) -> list[Submission]:
        """Draw submits of jobs that should succeed."""
        times = sorted(self._rng.uniform(0, seconds) for _ in range(count))
        works = self._rng.choices(list(_MIX), list(_MIX.values()), k=count)
        return [self._draw(at, work) for at, work in zip(times, works, strict=True)]

    def poison(self, at: float, deed: Deed) -> Submission:
        """Return the submit of a job that does a deed."""
        body = self._ask(self._catalog.deeds, {"do": deed}, task=TASK, engine=ENGINE)
        if deed is Deed.HANG:
            body["timeout_seconds"] = 5
        return Submission(at, str(deed), "/inference/infer", body, self._key(), deed=deed)

    def _draw(self, at: float, work: str) -> Submission:
        rng = self._rng
        call, body = getattr(self, f"_{work}")()
        return Submission(
            at,
            work,
            call,
            body,
            self._key(),
            cancel_after=rng.uniform(0, 3) if rng.random() < _CANCELLED else None,
            twice=rng.random() < _TWICE,
            abandons=rng.random() < _ABANDONED,
            wait=rng.uniform(1, 20) if rng.random() < _WAITED else 0,
        )

    def _key(self) -> str:
        self._count += 1
        return f"chaos-{self._seed}-{self._count}"

    def _ask(self, model: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"model_name": model, "data": data, "priority": self._rng.randrange(10), **more}

    def _echo(self) -> tuple[str, dict[str, Any]]:
        data: dict[str, Any] = {"do": Deed.ECHO, "text": f"said {self._rng.randrange(10**9)}"}
        if self._rng.random() < 0.3:
            data |= {"do": Deed.WORK, "seconds": self._rng.uniform(0, 3)}
        return "/inference/infer", self._ask(self._catalog.deeds, data, task=TASK, engine=ENGINE)

    def _infer(self) -> tuple[str, dict[str, Any]]:
        body = self._ask(
            self._rng.choice(self._catalog.chats),
            {"inputs": self._rng.choice(_TEXTS)},
            task="text-generation",
            options={"max_new_tokens": self._rng.randrange(4, 24), "do_sample": False},
        )
        return "/inference/infer", body

    def _stream(self) -> tuple[str, dict[str, Any]]:
        call, body = self._infer()
        return call, body | {"stream": True}

    def _item(self) -> dict[str, Any]:
        """Name a model: mostly one that was not downloaded yet."""
        repeated = self._downloaded and self._rng.random() < 0.15
        model = None if repeated else next(self._fresh, None)
        if model is None:
            model = self._rng.choice(self._downloaded)
        else:
            self._downloaded.append(model)
        return {"model_name": model}

    def _download(self) -> tuple[str, dict[str, Any]]:
        return "/models/download", self._item()

    def _batch(self) -> tuple[str, dict[str, Any]]:
        return "/models/batch_download", {"downloads": [self._item() for _ in range(3)]}

    def _upload(self) -> tuple[str, dict[str, Any]]:
        # No model goes twice to the same repository: each upload has something to commit.
        turn, index = divmod(self._uploads, len(self._catalog.staged))
        self._uploads += 1
        body = {
            "repo_name": f"{self._catalog.unique}-{turn}-{index % 3}",
            "local_model_name": self._catalog.staged[index],
        }
        return "/models/upload_to_lakefs", body

    def _register(self) -> tuple[str, dict[str, Any]]:
        source = self._rng.choice(self._catalog.chats)
        body = {
            "registered_name": f"{source}-{self._rng.randrange(4)}",
            "task": "text-generation",
            "lakefs_repo": source,
            "commit_id": self._catalog.commits[source],
            "path": f"chaos_{source}",
            "stage": self._rng.choice(["production", "staging", "none"]),
            "archive_existing_versions": self._rng.random() < 0.5,
        }
        return "/models/register_from_lakefs", body
