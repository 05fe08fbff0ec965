"""The branch of a version has a name that lakeFS takes, and one of its own."""

import re

from hypothesis import given
from hypothesis import strategies as st

from workers.lifecycle.version_branches import branch_name

LAKEFS = re.compile(r"\w[-\w]*", re.ASCII)
COMMIT = "0123456789abcdef" * 4
models = st.text(min_size=1, max_size=300)


@given(models, st.integers(1, 10**9))
def test_any_name_of_a_model_gives_a_name_that_lakefs_takes(model: str, version: int) -> None:
    name = branch_name(model, str(version), COMMIT)
    assert LAKEFS.fullmatch(name)
    assert len(name) <= 255


@given(models, models)
def test_two_models_share_no_branch(one: str, other: str) -> None:
    names = {branch_name(model, "1", COMMIT) for model in (one, other)}
    assert (len(names) == 1) == (one == other)


def test_a_name_is_readable() -> None:
    assert branch_name("smollm2_135m-chat", "3", COMMIT) == "keep-smollm2_135m-chat-v3-0123456789ab"
    assert re.fullmatch(
        r"keep-my-model-v2-[0-9a-f]{8}-v3-0123456789ab", branch_name("my model.v2", "3", COMMIT)
    )
    assert re.fullmatch(r"keep-[0-9a-f]{8}-v1-0123456789ab", branch_name("模型", "1", COMMIT))
