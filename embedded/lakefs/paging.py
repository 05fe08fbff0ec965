"""Pages of sorted listings, with prefixes folded at a delimiter."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends

from embedded.lakefs import views
from embedded.lakefs.views import Json

MAX_PER_PAGE = 1000
DEFAULT_PER_PAGE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a listing a client asks for; the query parameters of every list call."""

    prefix: str = ""
    after: str = ""
    amount: int = DEFAULT_PER_PAGE

    @property
    def limit(self) -> int:
        """The most items on a page."""
        return min(self.amount, MAX_PER_PAGE) if self.amount > 0 else DEFAULT_PER_PAGE


PagingQuery = Annotated[Paging, Depends()]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items with their keys; `None` stands for all items whose key has that prefix."""

    items: Sequence[tuple[str, T | None]]
    has_more: bool

    def view(
        self, show: Callable[[str, T], Json], fold: Callable[[str], Json] = views.common_prefix
    ) -> Json:
        """Return the JSON body of the page."""
        results = [fold(key) if item is None else show(key, item) for key, item in self.items]
        return {
            "pagination": {
                "has_more": self.has_more,
                "next_offset": self.items[-1][0] if self.has_more else "",
                "results": len(results),
                "max_per_page": MAX_PER_PAGE,
            },
            "results": results,
        }


def cut(listing: Mapping[str, T], paging: Paging, delimiter: str = "") -> Page[T]:
    """Return the part of `listing` that `paging` asks for."""
    keys = sorted(listing)
    found: list[tuple[str, T | None]] = []
    position = bisect_left(keys, max(paging.prefix, paging.after))
    while position < len(keys) and len(found) <= paging.limit:
        key = keys[position]
        if not key.startswith(paging.prefix):
            break
        folded = _fold(key, paging.prefix, delimiter)
        position = _after_prefix(keys, folded, position) if folded else position + 1
        if (folded or key) != paging.after:
            found.append((folded, None) if folded else (key, listing[key]))
    return Page(found[: paging.limit], len(found) > paging.limit)


def _fold(key: str, prefix: str, delimiter: str) -> str | None:
    """Return `key` up to the first delimiter after `prefix`, if there is one."""
    if not delimiter:
        return None
    head, found, _ = key[len(prefix) :].partition(delimiter)
    return prefix + head + delimiter if found else None


def _after_prefix(keys: Sequence[str], prefix: str, start: int) -> int:
    """Return the first position after the run of keys at `start` that have `prefix`."""
    return bisect_left(keys, True, lo=start, key=lambda key: not key.startswith(prefix))
