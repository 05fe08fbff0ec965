"""Schemathesis reads the OpenAPI that the front serves, and tries everything that it allows.

``make test`` makes a short run, the same each time. ``make fuzz`` makes a long one:
``FUZZ_EXAMPLES`` is the number of generated requests for each call, ``FUZZ_SEED`` chooses them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from api.waiting import MAX_WAIT_SECONDS
from tests.platform import Platform

pytestmark = pytest.mark.long

#: What a short run makes at least; nearly all of it is fixed by the OpenAPI itself.
LEAST_CASES = 500
#: No call may take longer: the longest wait that the API offers, and some.
CALL_SECONDS = MAX_WAIT_SECONDS + 30


@pytest.mark.timeout(3600)
def test_every_answer_is_as_openapi_says(
    platform: Platform, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    examples, seed = os.environ.get("FUZZ_EXAMPLES", "1"), os.environ.get("FUZZ_SEED", "1")
    report = tmp_path / "report.json"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
            *("run", f"{platform.http.base_url}/openapi.json", "--checks", "all", "--no-color"),
            *("--max-examples", examples, "--seed", seed, "--request-timeout", str(CALL_SECONDS)),
            *("--max-response-time", str(CALL_SECONDS)),
            *("--header", f"Authorization: {platform.http.headers['Authorization']}"),
            *("--continue-on-failure", "--report-json-path", str(report)),
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
    cases = json.loads(report.read_text())["test_cases"]["generated"]
    figure(f"OpenAPI: {cases} requests with seed {seed}, all answered as it says")
    assert cases >= max(LEAST_CASES, int(examples) * 30)
