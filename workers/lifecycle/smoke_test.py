"""Whether the answer of a new version is what its smoke test expects."""

from collections.abc import Iterator
from typing import Any

from shared.import_request import SmokeTest

#: Of an answer that was not as expected, this much is shown.
_SHOWN_LETTERS = 200


def problem_of(test: SmokeTest, answer: dict[str, Any]) -> str | None:
    """Return what is wrong with a version's answer; None if nothing is."""
    wanted, texts = test.expect_contains, list(_texts(answer))
    if wanted is None or any(wanted in text for text in texts):
        return None
    got = " | ".join(texts)
    shown = got[:_SHOWN_LETTERS] + "…" * (len(got) > _SHOWN_LETTERS)
    return f"the answer does not contain {wanted!r}, it is {shown!r}"


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of an answer, at any depth, but not what is told about it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            if name != "metadata":
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
