"""Resolutions are remembered for their time and never beyond a transition."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import NoServableVersionError, UnavailableError
from shared.models import ModelVersion
from shared.registry.resolutions import AWAY_SECONDS, Key, LocalEpoch, Resolutions
from shared.tasks import Engine, Task
from tests.clock import Clock

KEY: Key = ("model", None, None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolutions(clock: Clock) -> Resolutions:
    return Resolutions(5, LocalEpoch(), clock)


def version(number: str) -> Callable[[], ModelVersion]:
    found = ModelVersion("model", number, "none", Task.ASR, Engine.TRANSFORMERS, None)
    return lambda: found


def test_a_resolution_lasts_for_its_time(resolutions: Resolutions, clock: Clock) -> None:
    assert resolutions.get(KEY, version("1")).version == "1"
    clock.now += 4.9
    assert resolutions.get(KEY, version("2")).version == "1"
    clock.now += 0.2
    assert resolutions.get(KEY, version("2")).version == "2"


def test_other_questions_have_other_answers(resolutions: Resolutions) -> None:
    assert resolutions.get(KEY, version("1")).version == "1"
    assert resolutions.get(("model", "2", None), version("2")).version == "2"
    assert resolutions.get(("model", None, "staging"), version("3")).version == "3"


def test_a_transition_makes_them_forgotten(resolutions: Resolutions) -> None:
    resolutions.get(KEY, version("1"))
    resolutions.forget()
    assert resolutions.get(KEY, version("2")).version == "2"


def test_who_names_a_transition_is_not_told_what_was_before_it() -> None:
    class Unasked(LocalEpoch):
        def now(self) -> int:
            raise AssertionError("the epoch is known")

    resolutions = Resolutions(5, Unasked())
    assert resolutions.get(KEY, version("1"), epoch=7).version == "1"
    assert resolutions.get(KEY, version("2"), epoch=7).version == "1"
    assert resolutions.get(KEY, version("2"), epoch=8).version == "2"


def test_an_answer_from_before_a_transition_is_not_remembered(resolutions: Resolutions) -> None:
    def overtaken() -> ModelVersion:
        resolutions.forget()
        return version("1")()

    assert resolutions.get(KEY, overtaken).version == "1"
    assert resolutions.get(KEY, version("2")).version == "2"


def test_errors_are_not_remembered(resolutions: Resolutions) -> None:
    def fail() -> ModelVersion:
        raise NoServableVersionError("none yet")

    with pytest.raises(NoServableVersionError):
        resolutions.get(KEY, fail)
    assert resolutions.get(KEY, version("1")).version == "1"


def test_of_many_who_ask_at_once_one_resolves(resolutions: Resolutions) -> None:
    asked, answered = threading.Semaphore(0), threading.Event()

    def slow() -> ModelVersion:
        asked.release()
        assert answered.wait(30)
        return version("1")()

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(resolutions.get, KEY, slow) for _ in range(8)]
        assert asked.acquire(timeout=30)
        # A transition meanwhile: who asks from now on must not get the answer from before it.
        resolutions.forget()
        assert resolutions.get(KEY, version("2")).version == "2"
        answered.set()
        assert {each.result(30).version for each in found} <= {"1", "2"}
    assert not asked.acquire(blocking=False)


def test_who_waited_for_an_answer_that_failed_asks_too(resolutions: Resolutions) -> None:
    asked, failing = threading.Event(), threading.Event()

    def fail() -> ModelVersion:
        asked.set()
        assert failing.wait(30)
        raise NoServableVersionError("none yet")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(resolutions.get, KEY, fail)
        assert asked.wait(30)
        second = pool.submit(resolutions.get, KEY, version("1"))
        failing.set()
        assert second.result(30).version == "1"
        with pytest.raises(NoServableVersionError):
            first.result(30)


def test_while_mlflow_is_away_not_everyone_asks(resolutions: Resolutions, clock: Clock) -> None:
    def fail() -> ModelVersion:
        raise UnavailableError("MLflow does not answer", code="mlflow_unavailable")

    resolutions.get(KEY, version("1"))
    other = ("other", None, None)
    with pytest.raises(UnavailableError):
        resolutions.get(other, fail)
    with pytest.raises(UnavailableError):
        resolutions.get(other, version("2"))
    assert resolutions.get(KEY, version("3")).version == "1"
    clock.now += AWAY_SECONDS
    assert resolutions.get(other, version("2")).version == "2"


def test_no_time_means_no_memory(clock: Clock) -> None:
    resolutions = Resolutions(0, LocalEpoch(), clock)
    assert resolutions.get(KEY, version("1")).version == "1"
    assert resolutions.get(KEY, version("2")).version == "2"
