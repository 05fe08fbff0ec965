"""Trees in parts: against plain dictionaries, and what they share."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from embedded.lakefs.model import Entry
from embedded.lakefs.trees import Tree, decode, decode_part, differing


class PartsInMemory:
    """Keeps parts in a dictionary, and counts what is read."""

    def __init__(self) -> None:
        self.encoded: dict[str, str] = {}
        self.reads = 0

    def entries(self, part_id: str) -> Mapping[str, Entry]:
        self.reads += 1
        return decode_part(self.encoded[part_id])

    def keep(self, part_id: str, encoded: str) -> None:
        self.encoded[part_id] = encoded


def entry(text: str, mtime: int = 0) -> Entry:
    return Entry(text, text, len(text), mtime, "text/plain", {"k": text})


def plant(entries: Mapping[str, Entry], kept: PartsInMemory | None = None) -> Tree:
    return Tree((), kept or PartsInMemory()).with_changes(entries)


#: Enough different paths that trees have several parts.
paths = st.integers(0, 400).map(lambda number: f"d{number % 7}/{number}")
files = st.dictionaries(paths, st.sampled_from("xyz").map(entry), max_size=300)
edits = st.dictionaries(paths, st.one_of(st.none(), st.sampled_from("xyz").map(entry)))


@given(files, edits)
def test_a_tree_is_what_its_changes_make_of_it(
    before: dict[str, Entry], changed: dict[str, Entry | None]
) -> None:
    kept = PartsInMemory()
    tree = plant(before, kept).with_changes(changed)
    expected = {
        path: item for path, item in sorted({**before, **changed}.items()) if item is not None
    }
    assert list(tree.walk()) == list(expected.items())
    assert [tree.get(path) for path in sorted({**before, **changed})] == [
        expected.get(path) for path in sorted({**before, **changed})
    ]
    # The same paths and entries have the same parts, whatever led to them.
    assert tree.encoded() == plant(expected, kept).encoded()
    tree_id, encoded = tree.encoded()
    again = decode(encoded, kept)
    assert again.encoded()[0] == tree_id
    assert list(again.walk("d3")) == [item for item in expected.items() if item[0] >= "d3"]


@given(files, files, st.sampled_from(["", "d2/", "d5/30", "e"]))
def test_a_difference_is_that_of_dictionaries(
    left: dict[str, Entry], right: dict[str, Entry], start: str
) -> None:
    kept = PartsInMemory()
    assert list(differing(plant(left, kept), plant(right, kept), start)) == [
        (path, left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if path >= start and left.get(path) != right.get(path)
    ]


def test_a_change_of_one_path_in_ten_thousand_touches_two_parts_at_most() -> None:
    kept = PartsInMemory()
    before = plant({f"model/{number:05}": entry("x") for number in range(10_000)}, kept)
    stored = len(kept.encoded)
    assert stored > 50
    for path in ("model/05000", "model/05000-more", "model/99999", "a"):
        kept.reads = 0
        after = before.with_changes({path: entry("y")})
        assert kept.reads <= 2
        assert len(kept.encoded) - stored <= 2
        stored = len(kept.encoded)
        kept.reads = 0
        assert [item[0] for item in differing(before, after)] == [path]
        assert kept.reads <= 4
