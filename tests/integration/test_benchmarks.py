"""What the benchmarks count, start and end; their figures are not those of a test machine."""

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from benchmarks import ledger as ledger_benchmark
from benchmarks.__main__ import _peers
from benchmarks.clients import closed_loop
from benchmarks.peers import environments
from benchmarks.peers.comparison import (
    WrongAnswerError,
    _first_answer,
    _measured,
    _repeated,
    _summary,
)
from benchmarks.peers.environments import NotInstallableError, environment
from benchmarks.peers.parties import PEERS, Call, Party, _running, celery
from tests.processes import wait_until

#: Starts a process that a polite end of the first one leaves behind, and says its id.
LEAVES_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


class _Handler(BaseHTTPRequestHandler):
    """Echoes the body; each fourth answer of the path /odd is a 503."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        odd = self.path == "/odd" and self.asked % 4 == 0
        self.send_response(503 if odd else 200)
        body = b"busy" if odd else body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Keep silent."""


@contextmanager
def echo_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_clients_count_answers_and_their_time() -> None:
    with echo_server() as url:
        seen = closed_loop(f"{url}/even?wait=1", 4, 0.5, {"text": "hello"}, '"text": "hello"')
    assert seen.statuses.keys() == {"200"}
    assert seen.wrong == 0
    assert 0 < seen.per_second <= seen.statuses["200"] / 0.5
    assert 0 < seen.p50_seconds <= seen.p99_seconds


def test_clients_tell_wrong_answers() -> None:
    with echo_server() as url:
        seen = closed_loop(f"{url}/odd", 2, 0.5, {"text": "hello"}, "hello")
    assert seen.statuses["503"] == seen.wrong > 0


def test_what_cannot_be_installed_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing-1.0-py3-none-any.whl"
    monkeypatch.setitem(environments.REQUIREMENTS, "ray", (str(missing),))
    for _ in range(2):  # a failed installation is not taken for a complete one
        with pytest.raises(NotInstallableError, match=r"missing-1\.0"):
            environment(tmp_path / "environments", "ray")


def test_a_party_ends_with_all_its_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with _running([sys.executable, "-c", LEAVES_A_CHILD], log, {}) as pid:
        wait_until(lambda: log.read_text().endswith("\n"), what="a child")
        child = psutil.Process(int(log.read_text()))
        party = Party("party", Call("", {}, ""), pids=(pid,))
        party.suspend()
        wait_until(lambda: child.status() == psutil.STATUS_STOPPED, what="a stop")
        party.resume()
        wait_until(lambda: child.status() != psutil.STATUS_STOPPED, what="a resume")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_plain_celery_is_measured_and_checked(tmp_path: Path) -> None:
    # Its packages are installed here, too.
    with celery(tmp_path, Path(sys.executable).parent) as party:
        _first_answer(party.answer)
        party.suspend()
        party.resume()
        measured = {
            (name, measure): figure for name, measure, figure, _ in _measured(party, seconds=0.5)
        }
        with pytest.raises(WrongAnswerError):
            _repeated(replace(party.answer, expected="goodbye"), clients=1, seconds=0.1)
    assert measured.keys() == {
        ("celery", "answer"),
        ("celery", "p50"),
        ("celery", "submit"),
        ("fastapi alone", "answer"),
        ("fastapi alone", "p50"),
    }
    assert all(figure > 0 for figure in measured.values())


def test_ratios_are_ours_over_theirs_and_none_for_a_peer_that_did_not_run() -> None:
    medians = {
        ("ours", "submit"): 300.0,
        ("ours", "answer"): 200.0,
        ("ours", "p50"): 0.002,
        ("celery", "submit"): 100.0,
        ("celery", "answer"): 50.0,
        ("celery", "p50"): 0.004,
    }
    assert _summary(medians, 0.0031) == {
        "submit_vs_celery": 3.0,
        "answer_vs_litserve": None,
        "answer_vs_celery": 4.0,
        "p50_vs_celery": 0.5,
        "p50_vs_litserve": None,
        "first_text_ms": 3.1,
    }


def test_each_peer_has_an_environment_of_its_own() -> None:
    assert PEERS.keys() == environments.REQUIREMENTS.keys()


def test_unknown_peers_are_refused() -> None:
    assert _peers("celery,litserve") == ("celery", "litserve")
    with pytest.raises(argparse.ArgumentTypeError, match="vllm"):
        _peers("celery,vllm")


def test_the_ledger_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"ROUND": 20, "ROUNDS": 2, "COST_JOBS": 100, "SMALL": 100, "INPUTS": 5}
    fewer: dict[str, object] = {"CHILDREN": 600, "FAILED": 20, "TRIES": 1, "KINDS": (None,)}
    for name, value in (sizes | fewer).items():
        monkeypatch.setattr(ledger_benchmark, name, value)
    monkeypatch.setenv("LEDGER_LEASE_SECONDS", "1")
    ledger_benchmark.measure_ledger(listed=1200, large=1500)
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    # What does not depend on the machine.
    assert rows["script calls of a busy worker per job"] == pytest.approx(1, abs=0.05)
    assert rows["pages that are not full while more follow"] == 0
    assert rows["children of the batch that it does not show"] == 0
    assert rows["lease lost behind 1200 expiries, in leases"] >= 1
