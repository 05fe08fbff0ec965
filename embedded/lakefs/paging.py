"""Pages of sorted listings, with prefixes folded at a delimiter."""

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query

from embedded.lakefs import views
from embedded.lakefs.names import MAX_PATH_BYTES
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
        return self.amount if self.amount > 0 else DEFAULT_PER_PAGE


async def paging_query(
    prefix: str = "",
    after: str = "",
    amount: Annotated[int, Query(ge=-1, le=MAX_PER_PAGE)] = DEFAULT_PER_PAGE,
) -> Paging:
    """Return what a request's query asks for."""
    return Paging(prefix, after, amount)


PagingQuery = Annotated[Paging, Depends(paging_query)]


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


#: Yields keys from the given one on, in order, with their items.
Walk = Callable[[str], Iterator[tuple[str, T]]]


def by_key(items: Mapping[str, T]) -> Walk[T]:
    """Return a walk over what is in memory."""
    keys = sorted(items)
    return lambda start: ((key, items[key]) for key in keys[bisect_left(keys, start) :])


def cut(walk: Walk[T], paging: Paging, delimiter: str = "") -> Page[T]:
    """Return the part of a listing that `paging` asks for, reading no more of it."""
    found: list[tuple[str, T | None]] = []
    items = walk(max(paging.prefix, paging.after))
    while len(found) <= paging.limit and (following := next(items, None)):
        key, item = following
        if not key.startswith(paging.prefix):
            break
        folded = _fold(key, paging.prefix, delimiter)
        if folded:
            items = walk(_beyond(folded))
        if (folded or key) != paging.after:
            found.append((folded, None) if folded else (key, item))
    return Page(found[: paging.limit], len(found) > paging.limit)


def _fold(key: str, prefix: str, delimiter: str) -> str | None:
    """Return `key` up to the first delimiter after `prefix`, if there is one."""
    if not delimiter:
        return None
    head, found, _ = key[len(prefix) :].partition(delimiter)
    return prefix + head + delimiter if found else None


def _beyond(prefix: str) -> str:
    """Return a string that sorts after every path with `prefix`, and before all others."""
    return prefix + chr(sys.maxunicode) * MAX_PATH_BYTES
