"""Runs the commands of a page as its reader would: in order, in one shell, somewhere."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests import media_samples
from tests.docs.conftest import Stack
from tests.docs.pages import ROOT, Block

#: Of a page; and of the stack before the first one, on a machine that is very busy.
TIMEOUT_SECONDS, START_SECONDS = 400, 400
#: A call that is refused fails, as it would in front of a reader. jq is not on every machine; a
#: container's commands are run on this stack.
PRELUDE = r"""
set -eo pipefail
docker() { [ "$1 $2" = "compose exec" ] && "${@:4}"; }
curl() { command curl --fail-with-body --max-time 150 "$@"; }
jq() { python -c '
import json, sys
found, raw = json.load(sys.stdin), "-r" in sys.argv
for name in sys.argv[-1].strip(".").split("."):
    found = found[name] if name else found
print(found if raw and isinstance(found, str) else json.dumps(found, indent=2))' "$@"; }
"""


def substituted(text: str, stack: Stack) -> str:
    """Return a block with the addresses of this stack in place of the usual ones."""
    for usual, here in (
        (r"http://127\.0\.0\.1:8009", f"http://127.0.0.1:{stack.platform.api_port}"),
        (r"http://127\.0\.0\.1:11434", stack.ollama.url),
    ):
        text = re.sub(usual, here, text)
    return text


def run(blocks: Iterable[Block], stack: Stack, directory: Path) -> None:
    """Run blocks; a command that fails fails the test, with what was printed."""
    _furnish(directory)
    script = PRELUDE
    for block in blocks:
        text = substituted(block.text, stack)
        if block.language == "python":
            program = directory / f"line-{block.line}.py"
            program.write_text(text, "utf-8")
            text = f"python {program.name}\n"
        script += f"set +x; echo '── {block.place}'; set -x\n{text}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=_environment(stack, directory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    output = done.stdout.decode()
    (directory / "output").write_text(output, "utf-8")
    assert done.returncode == 0, output[output.rfind("── ") :][-4000:]


def _furnish(directory: Path) -> None:
    """Put there what a reader would have at hand."""
    shutil.copy(ROOT / ".env.example", directory)
    for name, content in {
        "photo.jpg": media_samples.image("jpeg"),
        "speech.wav": media_samples.audio("wav"),
        "clip.mp4": media_samples.mp4(),
        "report.pdf": media_samples.pdf(),
    }.items():
        (directory / name).write_bytes(content)


def _environment(stack: Stack, directory: Path) -> dict[str, str]:
    programs = Path(sys.executable).parent
    return {
        **os.environ,
        **stack.platform.env,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
        "LIFECYCLE_API_URL": f"http://127.0.0.1:{stack.platform.api_port}",
        "LIFECYCLE_DATA_DIR": str(directory / "data"),
    }
