"""The rule for file names, for every category of Unicode and every shape of a path."""

import sys
import unicodedata
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UnsafeModelError
from shared.file_names import check_file_names

REFUSED_CATEGORIES: Final = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")


def refusal(*paths: str, directory: str = "", reserved: str | None = None) -> str | None:
    """Return why the paths are refused as files of one model, or None."""
    try:
        check_file_names(
            paths, "the model", directory=directory, reserved=reserved, field="model_name"
        )
    except UnsafeModelError as error:
        told = error
    else:
        return None
    assert (told.specific_code, told.field) == ("unsafe_file_name", "model_name")
    assert told.detail.isprintable()
    assert told.info().model_dump_json().encode()  # as it travels between processes
    return told.detail


@given(st.characters(exclude_categories=REFUSED_CATEGORIES, exclude_characters="/\\."))
def test_a_character_of_a_printable_category_is_accepted(character: str) -> None:
    assert refusal(character, f"a{character}b/{character}{character}.json") is None


@given(st.characters(categories=REFUSED_CATEGORIES) | st.just("\\"))
def test_any_other_character_is_refused_by_its_name(character: str) -> None:
    told = refusal("config.json", f"sub/a{character}b")
    assert told is not None
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        assert f"0x{code - 0xDC00:02X}, which is not UTF-8" in told
    else:
        assert f"U+{code:04X}" in told
        assert unicodedata.name(character, "") in told


def test_characters_are_judged_by_their_category() -> None:
    for code in (*range(0x3100), *range(0x3100, sys.maxunicode, 97)):
        character = chr(code)
        allowed = unicodedata.category(character) not in REFUSED_CATEGORIES and character != "\\"
        assert (refusal(f"a{character}b") is None) == allowed, hex(code)


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_paths_are_accepted_or_refused_in_words(paths: list[str]) -> None:
    refusal(*paths)


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["../evil"], "segment '..'"),
        (["a/../../evil"], "segment '..'"),
        (["/etc/passwd"], "segment ''"),
        (["a//b"], "segment ''"),
        (["./a"], "segment '.'"),
        (["/"], "segment ''"),
        (["sub/"], "empty folders"),
        (["a\0b"], "U+0000 (control character)"),
        (["..\\evil"], "REVERSE SOLIDUS (U+005C)"),
        (["caf\udce9.json"], "the byte 0xE9, which is not UTF-8"),
        (["a\u200bb"], "ZERO WIDTH SPACE (U+200B)"),
        (["a" * 256], "255 bytes"),
        (["\u6a21" * 86], "255 bytes"),
        (["a/" * 512 + "a"], "1024 bytes"),
        (["a", "a"], "twice"),
        (["a/b/c", "a/b"], "'a/b' is a file"),
        (["a", "a/b/c"], "'a' is a file"),
    ],
    ids=ascii,
)
def test_paths_that_no_directory_can_hold_are_refused(paths: list[str], reason: str) -> None:
    assert reason in str(refusal("config.json", *paths))


@pytest.mark.parametrize(
    "path",
    [
        "..a",
        "a..b/...",
        ".gitattributes",
        " leading and trailing ",
        "+%#?&=;,:|*.txt",
        "100%25.txt",
        "'quote\".txt",
        "$HOME/[b]{c}/~",
        "\u6a21\u578b (1).json",
        "no\u00a0break\u3000space",
        "e\u0301.txt",
        "\u00e9.txt",
        "\U0001f600.txt",
        "\U0001f469\U0001f3fd\u200d\U0001f4bb.txt",  # woman technologist: joined emoji
        "\U0001f3f3\ufe0f\u200d\U0001f308.txt",  # rainbow flag
        "/".join("abcdefghijklmnopqrstuvwxyz1234"),
        "x" * 255,
        "\u6a21" * 85,
        "a/" * 511 + "aa",
    ],
    ids=lambda path: ascii(path)[:40],
)
def test_unusual_names_are_accepted(path: str) -> None:
    assert refusal("config.json", path) is None


@pytest.mark.parametrize("path", ["a\u200db", "\u200d\U0001f4bb", "\U0001f469\u200d", "\u200d"])
def test_a_joiner_is_refused_where_it_joins_no_emoji(path: str) -> None:
    assert "ZERO WIDTH JOINER" in str(refusal(path))


def test_a_name_that_nests_in_a_similar_one_is_not_its_directory() -> None:
    assert refusal("a", "ab/c", "a.b/c") is None


def test_the_directory_counts_for_the_length_and_is_judged_too() -> None:
    longest = "a/" * 511 + "aa"
    assert "1024 bytes" in str(refusal(longest, directory="org_model"))
    assert refusal(longest[10:], directory="org_model") is None
    assert "'b\\u2028d'" in str(refusal("config.json", directory="b\u2028d"))


@pytest.mark.parametrize("path", [".lifecycle.json", ".lifecycle.json/x"])
def test_a_reserved_name_is_refused_at_the_top_only(path: str) -> None:
    assert "own record" in str(refusal(path, directory="m", reserved=".lifecycle.json"))
    assert refusal(f"sub/{path}", directory="m", reserved=".lifecycle.json") is None
    assert refusal(path) is None
