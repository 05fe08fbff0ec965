"""Whole downloads from a real HTTP hub, sound and faulty, through the job's own entry."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from embedded.hub.faults import Fault, FaultKind
from embedded.hub.process import HubProcess
from embedded.hub.repository import ModelStore, publish
from shared.cancellation import CancelToken
from shared.errors import (
    CancelledError,
    ConflictError,
    DigestMismatchError,
    InsufficientDiskError,
    InvalidInputError,
    LifecycleError,
    NotFoundError,
    RequestError,
    UnavailableError,
    UnsafeModelError,
)
from shared.hub import Hub, HubFile, HubModel
from shared.jobs import Job, JobKind, JobState, Progress
from shared.requests import DownloadRequest
from shared.retries import Hold
from shared.settings import HubSettings, StorageSettings
from shared.staging import StagingArea
from tests.processes import wait_until
from workers.context import JobContext
from workers.lifecycle import transfer
from workers.lifecycle.download import Download, select

ROOT = Path(__file__).parents[2]
MODEL, LOCAL = "acme/tiny", "acme_tiny"
TOKEN = "hf_made_up_for_this_test"
WEIGHTS = "model.safetensors"
BIG = Random(0).randbytes(8_000_000)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    WEIGHTS: BIG,
    "tokenizer.json": Random(1).randbytes(200_000),
    "1_Pooling/a name with spaces + ü.json": b"{}",
    "empty.txt": b"",
    "pytorch_model.bin": b"a pickle",
}
SAFE = {path: content for path, content in FILES.items() if not path.endswith(".bin")}
SAFE_BYTES = sum(map(len, SAFE.values()))


@pytest.fixture(autouse=True)
def _short_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "HOLD", Hold(2.0, first_seconds=0.001, longest_seconds=0.05))


@pytest.fixture(scope="module")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub"), token=TOKEN) as process:
        yield process


@pytest.fixture
def hub(hub_process: HubProcess, put: "Put") -> HubProcess:
    """A sound hub with one model, its counters at zero."""
    put(MODEL, FILES)
    hub_process.set_faults()
    hub_process.reset_stats()
    return hub_process


Put = Callable[[str, dict[str, bytes]], str]


@pytest.fixture
def put(hub_process: HubProcess, tmp_path: Path) -> Put:
    """Publish files as the newest revision of a model; returns the commit."""

    def put(model: str, files: dict[str, bytes]) -> str:
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        for path, content in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(content)
        return publish(hub_process.root, model, source)

    return put


class Downloads:
    """Runs download jobs against one hub and one staging area, without a ledger."""

    def __init__(self, endpoint: str, root: Path, **settings: Any) -> None:
        self.settings = HubSettings(endpoint=endpoint, **settings)
        self.staging = StagingArea(StorageSettings(staging_dir=root, reserve_bytes=0))
        self.progress: list[Progress] = []

    def __call__(
        self, model: str = MODEL, token: CancelToken | None = None, **request: Any
    ) -> dict[str, Any]:
        now = datetime.now(UTC)
        job = Job(
            id="job",
            kind=JobKind.DOWNLOAD,
            state=JobState.RUNNING,
            request={"model_name": model, **request},
            queue="downloads",
            priority=5,
            created_at=now,
            available_at=now,
            max_attempts=3,
        )
        context = JobContext(job, token or CancelToken(), self.progress.append, lambda _: None)
        result = Download(Hub(self.settings), self.staging, self.settings)(context)
        context.flush()
        return result

    def files(self, name: str = LOCAL) -> dict[str, bytes]:
        model = self.staging.open(name)
        return {file.path: (model.path / file.path).read_bytes() for file in model.files}

    def partial(self, path: str = WEIGHTS, name: str = LOCAL) -> Path | None:
        """Where a file is being fetched to, once it is."""
        found = list((self.staging.root / ".partial" / name).glob(f"*/{path}"))
        return found[0] if found else None

    def partial_bytes(self, path: str = WEIGHTS) -> int:
        place = self.partial(path)
        return place.stat().st_size if place else 0

    def shown(self) -> list[str]:
        """What a look into the directory shows."""
        return [path.name for path in self.staging.root.glob("[!.]*")]


@pytest.fixture
def downloads(hub: HubProcess, tmp_path: Path) -> Downloads:
    return Downloads(hub.url, tmp_path / "models")


def sent(hub: HubProcess, path: str = WEIGHTS, model: str = MODEL) -> dict[str, Any]:
    stats: dict[str, Any] = hub.stats()["files"].get(f"{model}/{path}", {"transfers": 0})
    return stats


def fault(kind: FaultKind, **how: Any) -> Fault:
    return Fault(kind=kind, path=how.pop("path", f"*{WEIGHTS}"), **how)


def test_a_model_arrives_byte_for_byte(hub: HubProcess, downloads: Downloads, put: Put) -> None:
    result = downloads()
    assert result == {
        "local_model_name": LOCAL,
        "model_name": MODEL,
        "model_source": "huggingface",
        "revision": put(MODEL, FILES),
        "staged_id": downloads.staging.open(LOCAL).staged_id,
        "files": len(SAFE),
        "size_bytes": SAFE_BYTES,
        "fetched_bytes": SAFE_BYTES,
        "resumed_bytes": 0,
    }
    assert downloads.files() == SAFE
    assert hub.stats()["bytes_sent"] == SAFE_BYTES
    staged = downloads.staging.open(LOCAL)
    assert staged.revision == result["revision"]
    assert all(file.sha256 for file in staged.files)
    assert downloads.progress[-1].completed == downloads.progress[-1].total == SAFE_BYTES
    assert downloads.progress[-1].unit == "bytes"


def test_a_model_that_is_there_is_not_fetched_again(hub: HubProcess, downloads: Downloads) -> None:
    downloads()
    hub.reset_stats()
    again = downloads()
    assert (again["fetched_bytes"], again["resumed_bytes"]) == (0, SAFE_BYTES)
    assert hub.stats()["bytes_sent"] == 0
    assert downloads.progress[-1].completed == SAFE_BYTES


def test_a_file_that_was_damaged_in_the_staging_area_is_repaired(downloads: Downloads) -> None:
    downloads()
    (downloads.staging.root / LOCAL / WEIGHTS).write_bytes(b"damaged")
    downloads()
    assert downloads.files() == SAFE


def test_a_new_revision_fetches_only_what_changed(
    hub: HubProcess, downloads: Downloads, put: Put
) -> None:
    downloads()
    changed = {"config.json": b'{"new": 1}', WEIGHTS: BIG}
    commit = put(MODEL, changed)
    hub.reset_stats()
    result = downloads()
    assert result["revision"] == commit
    assert downloads.files() == changed
    assert sent(hub)["transfers"] == 0
    assert result["fetched_bytes"] == len(changed["config.json"])


def test_an_older_commit_can_be_asked_for(downloads: Downloads, put: Put) -> None:
    older = put(MODEL, {WEIGHTS: b"older"})
    put(MODEL, FILES)
    assert downloads(revision=older)["revision"] == older
    assert downloads.files() == {WEIGHTS: b"older"}


DOWNLOAD = """
import sys
from pathlib import Path
from tests.integration.test_download import Downloads
Downloads(sys.argv[1], Path(sys.argv[2]))()
"""


@pytest.mark.parametrize("kills", [1, 3])
def test_after_kill_9_the_bytes_on_the_disk_are_not_fetched_again(
    hub: HubProcess, downloads: Downloads, kills: int
) -> None:
    hub.set_faults(fault(FaultKind.THROTTLE, bytes_per_second=4_000_000))
    command = [sys.executable, "-c", DOWNLOAD, hub.url, str(downloads.staging.root)]
    for kill in range(1, kills + 1):
        enough = kill * 500_000
        with subprocess.Popen(command, cwd=ROOT) as process:
            wait_until(lambda enough=enough: downloads.partial_bytes() > enough, what="some bytes")  # type: ignore[misc]
            process.kill()
        assert downloads.shown() == []
    on_disk = downloads.partial_bytes()
    assert on_disk < len(BIG)
    hub.set_faults()
    hub.reset_stats()

    result = downloads()

    rest = len(BIG) - on_disk
    assert sent(hub) == {"transfers": 1, "bytes_sent": rest, "ranges": [f"bytes={on_disk}-"]}
    assert result["resumed_bytes"] >= on_disk
    assert downloads.files() == SAFE


def test_cut_connections_are_resumed_within_the_job(hub: HubProcess, downloads: Downloads) -> None:
    hub.set_faults(fault(FaultKind.CUT, after_bytes=3_000_000, times=2))
    assert downloads()["fetched_bytes"] == SAFE_BYTES
    assert sent(hub)["ranges"] == [None, "bytes=3000000-", "bytes=6000000-"]
    assert sent(hub)["bytes_sent"] == len(BIG)
    assert downloads.files() == SAFE


@pytest.mark.parametrize("path", [f"/{MODEL}/resolve/*", f"/cdn/*{WEIGHTS}"])
def test_a_hub_that_fails_for_a_while_is_asked_again(
    hub: HubProcess, downloads: Downloads, path: str
) -> None:
    hub.set_faults(fault(FaultKind.STATUS, path=path, times=3))
    downloads()
    assert downloads.files() == SAFE


@pytest.mark.parametrize("path", ["/api/*", f"*{WEIGHTS}"])
def test_a_hub_that_goes_on_failing_is_an_error_that_may_pass(
    hub: HubProcess, downloads: Downloads, path: str
) -> None:
    hub.set_faults(fault(FaultKind.STATUS, path=path))
    with pytest.raises(UnavailableError) as caught:
        downloads()
    assert caught.value.specific_code == "hub_unavailable"
    hub.set_faults()
    downloads()
    assert downloads.files() == SAFE


def test_a_hub_that_limits_the_rate_says_when_to_come_again(
    hub: HubProcess, downloads: Downloads
) -> None:
    hub.set_faults(fault(FaultKind.STATUS, path="/api/*", status=429, retry_after_seconds=120))
    with pytest.raises(UnavailableError) as caught:
        downloads()
    assert caught.value.retry_after_seconds == 120


def test_a_hub_that_is_not_there_is_an_error_that_may_pass(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        Downloads("http://127.0.0.1:9", tmp_path)()
    assert caught.value.specific_code == "hub_unavailable"


@pytest.mark.parametrize("path", ["/api/*", f"*{WEIGHTS}"])
def test_a_hub_that_says_nothing_is_given_up(hub: HubProcess, tmp_path: Path, path: str) -> None:
    hub.set_faults(fault(FaultKind.HANG, path=path))
    with pytest.raises(UnavailableError):
        Downloads(hub.url, tmp_path / "models", timeout_seconds=0.2)()


def test_a_wrong_digest_is_fetched_once_more(hub: HubProcess, downloads: Downloads) -> None:
    hub.set_faults(fault(FaultKind.CORRUPT, times=1))
    assert downloads()["fetched_bytes"] == SAFE_BYTES + len(BIG)
    assert downloads.files() == SAFE


@pytest.mark.parametrize(
    "how",
    [
        {"kind": FaultKind.CORRUPT},
        {"kind": FaultKind.CORRUPT, "path": "*config.json"},
        {"kind": FaultKind.RESIZE, "extra_bytes": 5},
        {"kind": FaultKind.RESIZE, "extra_bytes": -5},
    ],
)
def test_wrong_content_twice_fails_and_leaves_nothing_of_the_file(
    hub: HubProcess, downloads: Downloads, how: dict[str, Any]
) -> None:
    hub.set_faults(fault(**how))
    with pytest.raises(DigestMismatchError):
        downloads()
    assert downloads.shown() == []
    assert downloads.partial(how.get("path", WEIGHTS).removeprefix("*")) is None


def test_a_hub_that_ignores_ranges_sends_the_file_from_its_start(
    hub: HubProcess, downloads: Downloads
) -> None:
    hub.set_faults(
        fault(FaultKind.CUT, after_bytes=3_000_000, times=1), fault(FaultKind.IGNORE_RANGE)
    )
    downloads()
    assert sent(hub)["bytes_sent"] == 3_000_000 + len(BIG)
    assert downloads.files() == SAFE


def test_a_disk_that_is_too_small_is_noticed_before_the_transfer(
    hub: HubProcess, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=SAFE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InsufficientDiskError, match=f"{SAFE_BYTES:,}"):
        downloads()
    assert hub.stats()["bytes_sent"] == 0
    usage.free = SAFE_BYTES
    downloads()


def test_only_the_bytes_still_to_come_need_room(
    hub: HubProcess, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.set_faults(fault(FaultKind.CUT, after_bytes=3_000_000, times=1, path="*"))
    monkeypatch.setattr(transfer, "HOLD", Hold(0))
    with pytest.raises(UnavailableError):
        downloads(allow_patterns=[WEIGHTS])
    free = SimpleNamespace(free=len(BIG) - 3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert downloads(allow_patterns=[WEIGHTS])["resumed_bytes"] == 3_000_000


@pytest.mark.parametrize(
    "how",
    [
        {"kind": FaultKind.THROTTLE, "bytes_per_second": 100_000},
        {"kind": FaultKind.HANG, "after_bytes": 500_000},
        {"kind": FaultKind.HANG},
    ],
    ids=["slow", "silent amid a body", "silent from the start"],
)
def test_cancelling_stops_a_transfer_that_would_take_long(
    hub: HubProcess, downloads: Downloads, how: dict[str, Any]
) -> None:
    hub.set_faults(fault(**how, path=f"/cdn/*{WEIGHTS}"))
    token = CancelToken()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(downloads, token=token)
        wait_until(lambda: f"GET /cdn/{MODEL}" in str(hub.stats()["paths"]), what="the transfer")
        token.cancel(CancelledError("by the client"))
        # The hub's silence would last for its 30 seconds, the slow transfer for 80.
        assert isinstance(running.exception(timeout=15), CancelledError)
    assert downloads.shown() == []


def test_the_first_failure_stops_the_other_files(
    hub: HubProcess, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "HOLD", Hold(7200, first_seconds=3600, longest_seconds=3600))
    hub.set_faults(
        fault(FaultKind.HANG, path=f"/cdn/*{WEIGHTS}"),
        fault(FaultKind.STATUS, path="*tokenizer.json", status=403),
    )
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(downloads).exception(timeout=15)
    assert isinstance(error, RequestError)
    assert error.specific_code == "model_gated"
    assert downloads.shown() == []


def test_two_jobs_for_one_model_transfer_it_once(hub: HubProcess, downloads: Downloads) -> None:
    hub.set_faults(fault(FaultKind.THROTTLE, bytes_per_second=16_000_000))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: downloads(), range(2)))
    assert sorted(result["fetched_bytes"] for result in results) == [0, SAFE_BYTES]
    assert hub.stats()["bytes_sent"] == SAFE_BYTES
    assert downloads.files() == SAFE


def test_a_job_that_waits_for_another_one_can_be_cancelled(downloads: Downloads) -> None:
    token = CancelToken()
    with downloads.staging.lock(LOCAL, CancelToken()), ThreadPoolExecutor(1) as pool:
        running = pool.submit(downloads, token=token)
        token.cancel(CancelledError("by the client"))
        assert isinstance(running.exception(timeout=15), CancelledError)


def test_progress_counts_bytes_from_several_files_and_never_passes_the_total(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.context.REPORT_SECONDS", 0)
    downloads()
    assert {step.total for step in downloads.progress} == {SAFE_BYTES}
    assert all(0 <= step.completed <= SAFE_BYTES for step in downloads.progress)
    assert {step.message for step in downloads.progress} >= {"config.json", WEIGHTS}


@pytest.mark.parametrize(
    ("model", "revision", "code", "field"),
    [
        ("acme/none", None, "model_not_found", "model_name"),
        (MODEL, "no-such-branch", "revision_not_found", "revision"),
    ],
)
def test_what_does_not_exist_is_named(
    downloads: Downloads, model: str, revision: str | None, code: str, field: str
) -> None:
    with pytest.raises(NotFoundError, match=revision or model) as caught:
        downloads(model, revision=revision)
    assert (caught.value.specific_code, caught.value.field) == (code, field)


def test_gated_and_private_models_need_the_token(hub: HubProcess, put: Put, tmp_path: Path) -> None:
    for model in ("acme/gated", "acme/secret"):
        put(model, {"config.json": b"{}"})
    store = ModelStore(hub.root)
    store.set_access("acme/gated", gated=True)
    store.set_access("acme/secret", private=True)
    without = Downloads(hub.url, tmp_path / "models")
    with pytest.raises(RequestError, match="HF_TOKEN") as gated:
        without("acme/gated")
    assert gated.value.specific_code == "model_gated"
    with pytest.raises(NotFoundError) as secret:
        without("acme/secret")
    assert secret.value.specific_code == "model_not_found"
    with pytest.raises(RequestError, match="HF_TOKEN"):
        Downloads(hub.url, tmp_path / "models", token=SecretStr("wrong"))(MODEL)
    having = Downloads(hub.url, tmp_path / "models", token=SecretStr(TOKEN))
    for model in ("acme/gated", "acme/secret"):
        assert having(model)["files"] == 1


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        ({"allow_patterns": ["*.json"]}, {path for path in SAFE if path.endswith(".json")}),
        ({"allow_patterns": ["1_Pooling/"]}, {"1_Pooling/a name with spaces + ü.json"}),
        ({"ignore_patterns": ["*.json", "empty*"]}, {WEIGHTS}),
        ({"allow_patterns": ["*.json"], "ignore_patterns": ["*/*", "t*"]}, {"config.json"}),
    ],
)
def test_patterns_choose_files_as_in_the_hubs_own_client(
    downloads: Downloads, patterns: dict[str, Any], taken: set[str]
) -> None:
    downloads(**patterns)
    assert set(downloads.files()) == taken


def test_patterns_that_leave_nothing_are_an_error(downloads: Downloads) -> None:
    with pytest.raises(InvalidInputError) as caught:
        downloads(allow_patterns=["*.nothing"])
    assert caught.value.field == "allow_patterns"


def test_another_selection_of_the_same_commit_replaces_the_first(
    hub: HubProcess, downloads: Downloads
) -> None:
    downloads(allow_patterns=[WEIGHTS])
    hub.reset_stats()
    downloads()
    assert downloads.files() == SAFE
    assert sent(hub)["transfers"] == 0


def test_a_name_that_is_taken_by_another_model_is_not_overwritten(
    downloads: Downloads, put: Put
) -> None:
    put("acme_tiny", {"config.json": b"another"})
    downloads()
    with pytest.raises(ConflictError, match=MODEL) as caught:
        downloads("acme_tiny")
    assert caught.value.specific_code == "local_name_taken"
    assert downloads.files() == SAFE


def test_a_model_with_pickles_only_is_refused_unless_that_is_allowed(
    hub: HubProcess, put: Put, downloads: Downloads, tmp_path: Path
) -> None:
    put("acme/old", {"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    with pytest.raises(UnsafeModelError, match=r"pytorch_model\.bin") as caught:
        downloads("acme/old")
    assert caught.value.specific_code == "pickle_weights"
    assert hub.stats()["bytes_sent"] == 0
    trusting = Downloads(hub.url, tmp_path / "models", allow_pickle=True)
    assert trusting("acme/old")["files"] == 2


def listing(*paths: str) -> HubModel:
    return HubModel("acme/x", "a" * 40, tuple(HubFile(path, 1) for path in paths))


@pytest.mark.parametrize(
    ("files", "allow_pickle", "taken"),
    [
        (["a.safetensors", "b.bin", "sub/c.PT"], False, ["a.safetensors"]),
        (["a.safetensors", "b.bin"], True, ["a.safetensors"]),
        (["model.gguf", "training_args.bin", "optimizer.pt"], False, ["model.gguf"]),
        (["tf_model.h5", "flax_model.msgpack"], False, ["tf_model.h5", "flax_model.msgpack"]),
        (["model.bin", "training_args.bin"], True, ["model.bin", "training_args.bin"]),
    ],
)
def test_pickles_are_left_out_where_that_will_do(
    files: list[str], allow_pickle: bool, taken: list[str]
) -> None:
    chosen = select(listing(*files), DownloadRequest(model_name="a"), allow_pickle=allow_pickle)
    assert [file.path for file in chosen] == taken


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "CKPT"])
def test_asking_for_the_pickles_by_pattern_does_not_get_them(suffix: str) -> None:
    request = DownloadRequest(model_name="a", allow_patterns=(f"*.{suffix}",))
    with pytest.raises(UnsafeModelError):
        select(listing("a.safetensors", f"a.{suffix}"), request, allow_pickle=False)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [("path", "../../../evil", UnsafeModelError), ("sha", "../../evil", LifecycleError)],
)
def test_a_hostile_hub_writes_nothing_outside(
    hub: HubProcess,
    put: Put,
    downloads: Downloads,
    field: str,
    value: str,
    kind: type[LifecycleError],
) -> None:
    name = f"hostile-{field}"
    commit = put(name, {"config.json": field.encode()})
    record = hub.root / ".hub" / "models" / name / "commits" / f"{commit}.json"
    listed = json.loads(record.read_text())
    (listed["files"][0] if field == "path" else listed)[field] = value
    record.write_text(json.dumps(listed))
    with pytest.raises(kind):
        downloads(name)
    assert not downloads.staging.root.exists()


def test_threads_of_a_failed_download_do_not_outlive_it(
    hub: HubProcess, downloads: Downloads
) -> None:
    before = threading.active_count()
    hub.set_faults(fault(FaultKind.STATUS, path="*config.json", status=404))
    with pytest.raises(NotFoundError):
        downloads()
    assert threading.active_count() == before
