"""Words of a document that somebody else has read, as a request gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from shared.errors import InvalidInputError

#: Fields of ``data``: words in the order of reading, and the box around each.
NAMES = ("words", "boxes")

#: In thousandths of the page's width or height.
_Thousandths = Annotated[int, Field(ge=0, le=1000)]
#: Left, top, right, bottom.
Box = tuple[_Thousandths, _Thousandths, _Thousandths, _Thousandths]

X = TypeVar("X")

_WORDS = TypeAdapter(list[list[Annotated[str, Field(min_length=1)]]])
_BOXES = TypeAdapter(list[list[Box]])


@dataclass(frozen=True)
class PageWords:
    """The words of one page."""

    words: list[str]
    boxes: list[Box]


def words_of(data: Mapping[str, Any]) -> list[PageWords] | None:
    """Read the words of each page; None where there are none.

    For one page they may be given without the list around them.
    """
    words, boxes = (data.get(name) for name in NAMES)
    if words is None and boxes is None:
        return None
    if isinstance(words, list) and words and isinstance(words[0], str):
        words, boxes = [words], [boxes]
    words_read, boxes_read = _read(_WORDS, words, "words"), _read(_BOXES, boxes, "boxes")
    if [len(page) for page in words_read] != [len(page) for page in boxes_read]:
        raise InvalidInputError("there must be as many boxes as words", field="data.boxes")
    return [PageWords(*page) for page in zip(words_read, boxes_read, strict=True)]


def _read(adapter: TypeAdapter[list[list[X]]], value: Any, name: str) -> list[list[X]]:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(("data", name, *map(str, first["loc"])))
        raise InvalidInputError(f"{field}: {first['msg']}", field=f"data.{name}") from None
