"""The documents as tests read them: fenced blocks, and why some are not run.

A block of commands that the tests cannot run has its reason on the line above it::

    <!-- not run: needs docker; tests/deployment/test_images.py does the same without -->
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Its commands make API keys, and from then on the front asks everybody for one.
LAST = "docs/security.md"
PAGES = sorted(
    (
        str(path.relative_to(ROOT))
        for path in (*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md"))
    ),
    key=lambda page: (page == LAST, page),
)
COMMANDS = {"bash", "console", "python"}
#: What is shown and not run.
DATA = {"", "json", "mermaid", "nginx", "text", "toml", "yaml"}
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
#: A line that goes on with the one above, says something, or is within a quoted text.
_NO_COMMAND = re.compile(r"\s|#|$|[})]|done\b|fi\b")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    #: Why the tests do not run it.
    reason: str | None

    @property
    def place(self) -> str:
        """Where it begins."""
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return self.language in COMMANDS and self.reason is None

    @property
    def commands(self) -> int:
        """How many commands it has; a program is one."""
        if self.language == "python":
            return 1
        return sum(not _NO_COMMAND.match(line) for line in self.text.splitlines())


def text_of(page: str) -> str:
    """Return a page."""
    return (ROOT / page).read_text("utf-8")


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    text = text_of(page)
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["language"], found["text"], found["reason"])


def prose_of(page: str) -> str:
    """Return a page without its blocks."""
    return _BLOCK.sub("", text_of(page))
