"""Generated text reaches the job's events whole, in order, and in few calls."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import redis

from shared.cancellation import CancelToken
from shared.errors import LeaseLostError, UnavailableError
from shared.jobs import Job, JobKind, JobState
from shared.ledger import Ledger
from shared.ledger.schema import schema_prefix
from shared.settings import LedgerSettings
from tests.claims import claim, download
from tests.processes import wait_until
from workers.context import JobContext, Work
from workers.process import text_events
from workers.process.heartbeat import Heartbeat
from workers.process.runner import Runner
from workers.process.text_events import PIECE_SECONDS, TextEvents, TextSender


class FailingLedger(Ledger):
    """Counts the calls that report text; some of them, or their replies, are lost."""

    calls = 0
    #: What becomes of the next calls: ``answered``, ``call lost`` or ``reply lost``.
    fates: Iterator[str] = itertools.repeat("answered")

    def report_text(self, job: Job, number: int, text: str, event: str = "token") -> bool:
        self.calls += 1
        fate = next(self.fates)
        if fate == "call lost":
            raise UnavailableError("Redis does not answer")
        answer = super().report_text(job, number, text, event)
        if fate == "reply lost":
            raise UnavailableError("Redis does not answer")
        return answer


class Bench:
    """One running job whose text a test sends."""

    def __init__(self, client: "redis.Redis", settings: LedgerSettings) -> None:
        self.ledger = FailingLedger(client, settings)
        self.job = claim(self.ledger, self.ledger.accept(download("m", streams=True))[0].id)
        self._client = client
        self._settings = settings

    def run(self, work: Work) -> Job:
        heartbeat = Heartbeat("cpu@a", self.ledger, 60, lambda: None)
        runner = Runner(self.ledger, heartbeat, {JobKind.DOWNLOAD: work}, self._settings)
        runner.run(heartbeat.watch(self.job))
        return self.ledger.get(self.job.id)

    def events(self) -> list[tuple[str, Any]]:
        key = f"{schema_prefix(self._settings)}:events:{self.job.id}"
        entries: Any = self._client.xrange(key)
        return [(fields["event"], json.loads(fields["data"])) for _, fields in entries]

    def text(self, event: str = "token") -> str:
        return "".join(data["text"] for name, data in self.events() if name == event)


@pytest.fixture
def bench(redis_client: "redis.Redis", ledger_settings: LedgerSettings) -> Bench:
    return Bench(redis_client, ledger_settings)


def emitting(*texts: str) -> Work:
    def work(context: JobContext) -> dict[str, Any]:
        for text in texts:
            context.emit(text)
        return {}

    return work


TOKENS = [f"{number} " for number in range(1000)]


def test_a_thousand_tokens_take_few_calls(bench: Bench) -> None:
    began = time.monotonic()
    bench.run(emitting(*TOKENS))
    # One for the first token, one for each round of the sender, and one before the end.
    assert bench.ledger.calls <= (time.monotonic() - began) / PIECE_SECONDS + 3
    assert bench.text() == "".join(TOKENS)


def test_the_first_text_is_there_when_the_engine_goes_on(bench: Bench) -> None:
    seen: list[str] = []

    def work(context: JobContext) -> dict[str, Any]:
        context.emit("first")
        seen.append(bench.text())
        return {}

    bench.run(work)
    assert seen == ["first"]


def test_later_text_comes_although_the_engine_says_nothing_more(bench: Bench) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        emitting("one ", "two ", "three")(context)
        wait_until(lambda: bench.text() == "one two three", what="the rest")
        return {}

    assert bench.run(work).state is JobState.SUCCEEDED


def test_the_last_text_comes_before_the_end(bench: Bench) -> None:
    bench.run(emitting("one ", "two ", "three"))
    names = [name for name, _ in bench.events()]
    assert bench.text() == "one two three"
    assert names[-2:] == ["state", "done"]
    assert "token" not in names[names.index("state", 2) :]


def test_thoughts_and_answer_keep_their_order(bench: Bench) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        for text in ("hm", ", ", "well"):
            context.emit_thought(text)
        emitting("an ", "answer")(context)
        return {}

    bench.run(work)
    names = [name for name, _ in bench.events() if name in {"thinking", "token"}]
    assert names == sorted(names), "what the model thinks comes first"
    assert (bench.text("thinking"), bench.text()) == ("hm, well", "an answer")


@pytest.mark.parametrize(
    "fates",
    [
        ("call lost",) * 3,
        ("reply lost",) * 3,
        ("answered", "reply lost", "call lost", "reply lost", "answered", "call lost"),
    ],
)
def test_text_comes_once_through_an_outage_of_redis(bench: Bench, fates: tuple[str, ...]) -> None:
    bench.ledger.fates = itertools.chain(fates, itertools.repeat("answered"))

    def work(context: JobContext) -> dict[str, Any]:
        for token in TOKENS[:100]:
            context.emit(token)
            time.sleep(PIECE_SECONDS / 20)
        return {}

    with mock.patch.object(text_events, "OUTAGE_SECONDS", PIECE_SECONDS):
        assert bench.run(work).state is JobState.SUCCEEDED
    assert bench.text() == "".join(TOKENS[:100])


def test_no_run_waits_for_a_redis_that_hangs_but_with_its_first_text(bench: Bench) -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    def hang(_: Ledger, *arguments: Any) -> bool:
        hangs.set()
        assert goes_on.wait(30)
        return Ledger.report_text(bench.ledger, *arguments)

    def work(context: JobContext) -> dict[str, Any]:
        context.emit("one ")
        with mock.patch.object(FailingLedger, "report_text", hang):
            context.emit("two ")
            assert hangs.wait(30)
            context.emit("three ")
            context.emit("four")
            goes_on.set()
            wait_until(lambda: bench.text() == "one two three four", what="the rest")
        return {}

    assert bench.run(work).state is JobState.SUCCEEDED


def test_text_of_a_lost_job_stops_its_run(bench: Bench) -> None:
    cancel = CancelToken()
    texts = TextEvents(bench.ledger, bench.job, cancel, TextSender())
    bench.ledger.requeue(bench.job, counts=False)
    texts.add("late")
    assert isinstance(cancel.reason, LeaseLostError)
    texts.send()
    assert bench.text() == ""
