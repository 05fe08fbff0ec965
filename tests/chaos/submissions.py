"""The submits of a run, drawn by its seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.misbehaviour import ENGINE, TASK, Deed


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


#: Jobs of each sort, of a hundred.
_MIX = {
    "echo": 32,
    "infer": 14,
    "stream": 8,
    "download": 14,
    "batch": 3,
    "upload": 14,
    "register": 11,
    "import": 4,
}
#: Of the good jobs: cancelled, sent twice, abandoned.
_CANCELLED, _TWICE, _ABANDONED, _WAITED = 0.06, 0.08, 0.06, 0.1
_TEXTS = ("the quick brown fox", "a model that nobody asks", "lazy dog", "zażółć gęślą jaźń")


class Submissions:
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
        call, body = getattr(self, f"_draw_{work}")()
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

    def _draw_echo(self) -> tuple[str, dict[str, Any]]:
        data: dict[str, Any] = {"do": Deed.ECHO, "text": f"said {self._rng.randrange(10**9)}"}
        if self._rng.random() < 0.3:
            data |= {"do": Deed.WORK, "seconds": self._rng.uniform(0, 3)}
        return "/inference/infer", self._ask(self._catalog.deeds, data, task=TASK, engine=ENGINE)

    def _draw_infer(self) -> tuple[str, dict[str, Any]]:
        body = self._ask(
            self._rng.choice(self._catalog.chats),
            {"inputs": self._rng.choice(_TEXTS)},
            task="text-generation",
            options={"max_new_tokens": self._rng.randrange(4, 24), "do_sample": False},
        )
        return "/inference/infer", body

    def _draw_stream(self) -> tuple[str, dict[str, Any]]:
        call, body = self._draw_infer()
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

    def _draw_download(self) -> tuple[str, dict[str, Any]]:
        return "/models/download", self._item()

    def _draw_batch(self) -> tuple[str, dict[str, Any]]:
        return "/models/batch_download", {"downloads": [self._item() for _ in range(3)]}

    def _draw_upload(self) -> tuple[str, dict[str, Any]]:
        # No model goes twice to the same repository: each upload has something to commit.
        turn, index = divmod(self._uploads, len(self._catalog.staged))
        self._uploads += 1
        body = {
            "repo_name": f"{self._catalog.unique}-{turn}-{index % 3}",
            "local_model_name": self._catalog.staged[index],
        }
        return "/models/upload_to_lakefs", body

    def _draw_register(self) -> tuple[str, dict[str, Any]]:
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

    def _draw_import(self) -> tuple[str, dict[str, Any]]:
        source, number = self._rng.choice(self._catalog.chats), self._count
        body: dict[str, Any] = {
            "model_name": f"chaos/{source}",
            "repo_name": f"{self._catalog.unique}-import-{number}",
            "registered_name": f"{self._catalog.unique}-import-{number}",
            "task": "text-generation",
            "stage": "production",
        }
        if self._rng.random() < 0.4:
            data = {"inputs": self._rng.choice(_TEXTS)}
            body["smoke_test"] = {"data": data, "options": {"max_new_tokens": 4}}
        return "/models/import", body
