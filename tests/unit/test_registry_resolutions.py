"""Resolutions are remembered for their time and never beyond a transition."""

from collections.abc import Callable

import pytest

from shared.errors import NoServableVersionError
from shared.models import ModelVersion
from shared.registry.resolutions import Key, LocalEpoch, Resolutions
from shared.tasks import Engine, Task

KEY: Key = ("model", None, None)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


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


def test_no_time_means_no_memory(clock: Clock) -> None:
    resolutions = Resolutions(0, LocalEpoch(), clock)
    assert resolutions.get(KEY, version("1")).version == "1"
    assert resolutions.get(KEY, version("2")).version == "2"
