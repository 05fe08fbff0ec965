"""Pages of listings, against the obvious way to make them."""

from hypothesis import given
from hypothesis import strategies as st

from embedded.lakefs.paging import Paging, by_key, cut

keys = st.text("ab/", max_size=6)


def folded(listing: set[str], prefix: str, delimiter: str) -> list[str]:
    """List the slow way: everything, then folded, then sorted."""
    shown = set()
    for key in listing:
        if key.startswith(prefix):
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            shown.add(prefix + head + found if found else key)
    return sorted(shown)


@given(st.sets(keys), keys, st.sampled_from(["", "/"]), st.integers(1, 4))
def test_pages_put_together_are_the_listing(
    listing: set[str], prefix: str, delimiter: str, amount: int
) -> None:
    collected: list[str] = []
    after = ""
    while True:
        page = cut(
            by_key(dict.fromkeys(listing - {""}, 0)), Paging(prefix, after, amount), delimiter
        )
        assert len(page.items) <= amount
        collected += [key for key, _ in page.items]
        if not page.has_more:
            break
        after = collected[-1]
    assert collected == folded(listing - {""}, prefix, delimiter)


def test_no_amount_is_the_usual_one() -> None:
    assert [Paging(amount=amount).limit for amount in (-1, 0, 7)] == [100, 100, 7]
