"""Links within the repository lead somewhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, ROOT, prose_of

_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
_DROPPED = re.compile(r"[^\w\- ]")


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose_of(page)):
        plain = _LINK.sub("", heading).lower()
        name = _DROPPED.sub("", plain).replace(" ", "-")
        number = 0
        while (anchor := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(anchor)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_resolve(page: str) -> None:
    wrong = []
    for link in _LINK.findall(_CODE.sub("`code`", prose_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / unquote(path) if path else ROOT / page
        if not target.exists() or (anchor and unquote(anchor) not in anchors(_relative(target))):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_the_index_leads_to_every_page(page: str) -> None:
    index = ROOT / "docs/README.md"
    linked = {
        _relative(index.parent / link.partition("#")[0])
        for link in _LINK.findall(prose_of("docs/README.md"))
        if not re.match(r"[a-z]+:", link)
    }
    under = {str(Path(each).parent) for each in linked if each.endswith("/README.md")}
    assert page == "docs/README.md" or page in linked or str(Path(page).parent) in under


def _relative(path: Path) -> str:
    return str(path.resolve().relative_to(ROOT))
