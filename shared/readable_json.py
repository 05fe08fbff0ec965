"""JSON of clients that all can read who meet it: front, Redis, workers, other clients."""

from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator

#: Chats with tools nest less, and readers of JSON stop at some depth.
_MAX_DEPTH = 64
#: Everybody who looks at a job reads them all.
_MAX_VALUES = 100_000


def _readable(given: dict[str, Any]) -> dict[str, Any]:
    """Refuse what some reader of JSON could not read, or not in good time."""
    level: list[Any] = [given]
    count = 0
    for _ in range(_MAX_DEPTH):
        level = [part for value in level for part in _parts(value)]
        count += len(level)
        if count > _MAX_VALUES:
            raise ValueError(f"must not hold more than {_MAX_VALUES} values")
        if not level:
            return given
    raise ValueError(f"must not nest more than {_MAX_DEPTH} deep")


def _parts(value: Any) -> Iterable[Any]:
    """Return what a value is made of; refuse what is no value of JSON."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("must hold only finite numbers")
    if isinstance(value, str) and not _is_text(value):
        raise ValueError("must hold only Unicode texts, without lone surrogates")
    return ()


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


#: An object whose content only the task's handler knows.
JsonObject = Annotated[dict[str, Any], AfterValidator(_readable)]
