"""Every command in README and docs is run, or says why not."""

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import yaml

from tests.docs.conftest import Stack
from tests.docs.pages import COMMANDS, DATA, PAGES, ROOT, Block, blocks_of, text_of
from tests.docs.shell import START_SECONDS, TIMEOUT_SECONDS, run

pytestmark = pytest.mark.long

BLOCKS = tuple(chain.from_iterable(map(blocks_of, PAGES)))
NOT_RUN = [block for block in BLOCKS if block.reason]
_TEST = re.compile(r"tests/[\w/]+\.py")
_SERVICE = re.compile(r"docker compose[^\n;&`]*? (?:exec|run|restart|logs)(?: --\S+)* ([\w-]+)")
_MAKE = re.compile(r"(?:^|`)make ([a-z][a-z-]*)", re.MULTILINE)


@pytest.mark.timeout(TIMEOUT_SECONDS + START_SECONDS)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.is_run for block in blocks_of(page))]
)
def test_commands_of_a_page_do_what_it_says(page: str, stack: Stack, tmp_path: Path) -> None:
    run((block for block in blocks_of(page) if block.is_run), stack, tmp_path)


def test_every_block_is_of_a_language_that_is_known() -> None:
    unknown = {block.place: block.language for block in BLOCKS}
    assert {k: v for k, v in unknown.items() if v not in COMMANDS | DATA} == {}


def test_what_is_not_run_here_says_which_test_does_it(
    figure: Callable[[str], None],
) -> None:
    for block in NOT_RUN:
        tests = _TEST.findall(block.reason or "")
        assert tests, f"{block.place}: {block.reason}"
        assert all((ROOT / test).is_file() for test in tests), block.place
    ran = [block for block in BLOCKS if block.is_run]
    figure(f"docs: {sum(b.commands for b in ran)} commands in {len(ran)} blocks are run")
    skipped: Counter[str] = Counter()
    for block in NOT_RUN:
        skipped[str(block.reason)] += block.commands
    for reason, count in skipped.items():
        figure(f"docs: {count} commands are not run: {reason}")


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.place)
def test_what_is_not_run_can_be_read(block: Block) -> None:
    if block.language == "python":
        compile(block.text, block.place, "exec")
        return
    read = subprocess.run(
        ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
    )
    assert read.returncode == 0, read.stderr


def test_services_and_targets_that_are_named_are_there() -> None:
    services = set(yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(_SERVICE.findall(text_of(page))) <= services, page
        assert set(_MAKE.findall(text_of(page))) <= targets, page
