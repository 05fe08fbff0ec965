"""`lifecycle demo` does for a newcomer what it says."""

from pathlib import Path

import pytest

from embedded.demo import QUESTIONS
from embedded.demo_answers import ANSWERS
from tests.e2e.command_line import START_SECONDS, CommandLine

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]


def test_the_demo_takes_a_model_from_a_hub_to_its_answers(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)

    demo = command.run("demo", "--free-ports", timeout_seconds=START_SECONDS)

    assert demo.returncode == 0, demo.stdout[-4000:] + demo.stderr[-4000:]
    for question in QUESTIONS:
        assert ANSWERS[question] in demo.stdout
    assert "version 1, stage production" in demo.stdout
    assert command.processes() == {}
    assert command.data.running() is None
