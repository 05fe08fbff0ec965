"""Two hosts import one model at two revisions, again and again: each commit holds its revision."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings
from tests.platform import Json, Platform

#: Each pair is eight jobs in a row.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

HOSTS = ("left", "right")
MODEL, REPO, PATH = "two/moving", "two-moving", "two_moving"
REVISIONS, PAIRS = 6, 200
#: Pairs that are under way at once.
AT_ONCE = 2


Revisions = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def hub_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a hub."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def revisions(hub_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Revisions:
    """The files of each published revision with their sizes; no two have the same files."""
    found, draw = {}, random.Random(12)
    for number in range(REVISIONS):
        directory = tmp_path_factory.mktemp("model")
        _model(directory, number, draw)
        sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
        found[publish(hub_root, MODEL, directory)] = sizes
    return found


def _model(directory: Path, number: int, draw: random.Random) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "number": number}
    (directory / "config.json").write_text(json.dumps(config))
    save_file({"t": torch.zeros(number + 1)}, directory / "model.safetensors")
    for extra in draw.sample(range(8), 4):
        (directory / f"extra-{extra}.json").write_text(json.dumps([number] * draw.randint(1, 3)))


@pytest.fixture(scope="module")
def platform(
    hub_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_server: str,
    lakefs_server: LakeFSSettings,
) -> Iterator[Platform]:
    """An API server and a CPU worker on each of two hosts."""
    directory = tmp_path_factory.mktemp("hosts")
    with HubProcess(hub_root) as hub:
        platform = Platform(directory, mlflow_server, lakefs_server, hub, HOSTS)
        try:
            platform.start("redis", "api", *(f"cpu-{host}" for host in HOSTS))
            yield platform
        finally:
            platform.stop()
            platform.http.close()


def imported(platform: Platform, revision: str, name: str) -> Json:
    """Import a revision and return the job's result."""
    job = platform.submit(
        "/models/import",
        model_name=MODEL,
        revision=revision,
        repo_name=REPO,
        registered_name=name,
        task="text-generation",
        engine="transformers",
    )
    return dict(platform.ended(job["job_id"])["result"])


def test_pairs_of_imports_at_two_revisions_do_not_mix(
    platform: Platform,
    revisions: Revisions,
    lakefs_server: LakeFSSettings,
    figure: Callable[[str], None],
) -> None:
    draw = random.Random(200)
    pairs = [draw.sample(sorted(revisions), 2) for _ in range(PAIRS)]

    def run(pair: list[str]) -> list[Json]:
        with ThreadPoolExecutor(2) as both:
            return list(both.map(lambda each: imported(platform, each, f"m-{each[:8]}"), pair))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = [result for pair in pool.map(run, pairs) for result in pair]
    store = LakeFSStore(lakefs_server)
    wrong = 0
    for result in results:
        files = store.files(REPO, result["commit_id"], PATH)
        wrong += {file.path: file.size_bytes for file in files} != revisions[result["revision"]]
    store.close()
    figure(f"imports at once: {PAIRS} pairs, {wrong} commits wrong, 0 jobs failed")
    assert wrong == 0
