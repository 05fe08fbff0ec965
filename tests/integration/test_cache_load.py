"""Many models, little memory, many requests at a time: no error, no leak, no model loaded twice."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.settings import MIB, InferenceSettings, Settings, StorageSettings
from tests import cache_load
from tests.model_stores import DirectoryStore, StaticRegistry
from tests.tiny_models import tiny_llama
from workers.inference.manager import build_manager

pytestmark = pytest.mark.long

AT_ONCE = 16


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the load in a process of its own, whose memory is nobody else's."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cache_load", str(tmp_path_factory.mktemp("load"))],
        check=False,
        capture_output=True,
        text=True,
        timeout=350,  # below that of a test
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("run", ["one_at_a_time", "at_once"])
def test_every_request_is_answered_right_and_the_budget_holds(
    load: dict[str, Any], run: str
) -> None:
    report = load[run]
    assert report["failures"] == []
    assert report["hits"] + report["misses"] == cache_load.REQUESTS
    assert 0 < report["peak_bytes"] <= report["max_bytes"]


def test_one_at_a_time_the_hits_are_those_of_an_ideal_lru(load: dict[str, Any]) -> None:
    assert load["one_at_a_time"]["hits"] == load["ideal_hits"]


def test_several_at_a_time_the_hits_are_about_those_of_an_ideal_lru(
    load: dict[str, Any], figure: Callable[[str], None]
) -> None:
    """They cannot be equal.

    The ideal one serves the requests in their order. Here eight go on at once, in the order in
    which threads come to it: who asks for a model that is being loaded waits and counts as a hit,
    and a model in use is passed over, so another one, used later, goes in its place.
    """
    ideal = load["ideal_hits"] / cache_load.REQUESTS
    one, eight = load["one_at_a_time"], load["at_once"]
    figure(
        f"cache, {cache_load.MODELS} models, budget for {cache_load.WARM}, {cache_load.REQUESTS} "
        f"requests: hit rate {one['hit_rate']:.3f} one at a time, {eight['hit_rate']:.3f} "
        f"{cache_load.AT_ONCE} at a time, {ideal:.3f} of an ideal LRU on the same sequence; "
        f"peak {eight['peak_bytes'] / eight['max_bytes']:.0%} of the budget; "
        f"evictions {eight['evictions']}"
    )
    assert eight["hit_rate"] >= ideal - 0.05


def test_memory_comes_back_when_the_cache_is_cleared(
    load: dict[str, Any], figure: Callable[[str], None]
) -> None:
    before, after = load["rss_before"], load["rss_after"]
    loads = load["one_at_a_time"]["misses"] + load["at_once"]["misses"]
    figure(
        f"cache, resident memory: {before / MIB:.0f} MiB before, {after / MIB:.0f} MiB after "
        f"{loads} loads and a clear ({after / before - 1:+.1%})"
    )
    assert after <= 1.15 * before


def test_many_ask_a_cold_model_at_once_and_it_is_loaded_once(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    store, registry = DirectoryStore(tmp_path / "store"), StaticRegistry()
    location = store.location("aaaaaaaa")
    expected = cache_load.answer(tiny_llama(store.directory(location)))
    registry.add("tiny", location)
    settings = Settings(
        inference=InferenceSettings(device="cpu", cache_max_bytes=64 * MIB, preload=False),
        storage=StorageSettings(
            snapshots_dir=tmp_path / "snapshots", snapshots_max_bytes=0, reserve_bytes=0
        ),
    )
    manager = build_manager(settings, registry, store)
    answers = [""] * AT_ONCE
    together = threading.Barrier(AT_ONCE)

    def ask(number: int) -> None:
        data = {"inputs": cache_load.PROMPT}
        together.wait(30)
        result = manager.infer("text-generation", "transformers", "tiny", data, cache_load.OPTIONS)
        answers[number] = result["generated_text"]

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(AT_ONCE)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    stats = manager.get_stats()
    manager.close()
    torch.set_num_threads(threads)

    assert answers == [expected] * AT_ONCE
    assert (stats["cache"]["misses"], stats["cache"]["hits"]) == (1, AT_ONCE - 1)
    assert stats["succeeded"] == AT_ONCE
    assert len(store.fetched) == len(set(store.fetched))
    [device] = [device for device in stats["devices"] if device["in_use"]]
    assert device["name"] == "cpu"
    assert 0 < device["used_bytes"] < device["max_bytes"] == 64 * MIB
