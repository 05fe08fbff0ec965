"""Killed workers, a killed lakeFS and cancelled uploads leave no branch behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.branch_storm import Storm


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_kills_leave_no_branch_of_a_job_and_touch_no_other(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    outcome = Storm(tmp_path, seed=7).run(kills=100)
    figure(f"branch storm: {outcome.figures()}")
    assert not outcome.wrong
    assert outcome.kills.total() >= 100
    assert outcome.swept > 0, "jobs left nothing: the kills hit none of them"
