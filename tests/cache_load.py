"""Many models through a cache for a few, in a process of its own: ``python -m tests.cache_load``.

Says as JSON what happened; ``tests/integration/test_cache_load.py`` judges it.
"""

import json
import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import structlog
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.settings import InferenceSettings, Settings, StorageSettings
from tests.model_stores import DirectoryStore, StaticRegistry
from tests.tiny_models import tiny_llama
from workers.inference.manager import InferenceManager, build_manager
from workers.inference.memory import release_memory
from workers.inference.weights import tensors

MODELS, WARM, REQUESTS, AT_ONCE = 12, 4, 300, 8
PROMPT, TOKENS = "the quick brown fox", 2
OPTIONS = {"max_new_tokens": TOKENS}


class Load:
    """Twelve models, a cache for four of them, and the order in which they are asked."""

    def __init__(self, root: Path) -> None:
        store, registry = DirectoryStore(root / "store"), StaticRegistry()
        self.expected: dict[str, str] = {}
        for number in range(MODELS):
            location = store.location(f"{number:08x}")
            directory = tiny_llama(store.directory(location), seed=number, hidden=128)
            registry.add(f"model-{number}", location)
            self.expected[f"model-{number}"] = answer(directory)
        size_bytes = sum(tensor.size_bytes(None) for tensor in tensors(directory))
        # Half a model more than four, so that what is held beside the weights does not count.
        self.max_bytes = size_bytes * WARM + size_bytes // 2
        settings = Settings(
            inference=InferenceSettings(
                device="cpu", cache_max_bytes=self.max_bytes, cache_max_models=MODELS, preload=False
            ),
            storage=StorageSettings(
                snapshots_dir=root / "snapshots", snapshots_max_bytes=0, reserve_bytes=0
            ),
        )
        self.manager: InferenceManager = build_manager(settings, registry, store)
        self.sequence = random.Random(7).choices(list(self.expected), k=REQUESTS)

    def run(self, at_once: int, requests: int = REQUESTS) -> dict[str, Any]:
        """Send requests, so many at a time; return what came of them."""
        before = self.manager.get_stats()["cache"]
        started = perf_counter()
        with self._watched() as peak, ThreadPoolExecutor(at_once) as pool:
            failures = [
                failure for failure in pool.map(self._ask, self.sequence[:requests]) if failure
            ]
        seconds = perf_counter() - started
        after = self.manager.get_stats()["cache"]
        counts = {name: after[name] - before[name] for name in ("hits", "misses")}
        return {
            "failures": failures,
            "peak_bytes": peak[0],
            "max_bytes": self.max_bytes,
            "evictions": after["evictions"],
            "seconds": round(seconds, 1),
            "hit_rate": counts["hits"] / requests,
            **counts,
        }

    def clear(self) -> int:
        """Unload everything; return the process's resident memory."""
        assert not self.manager.clear_cache()["in_use"]
        assert not self.manager.get_cached_models()
        release_memory()
        return int(psutil.Process().memory_info().rss)

    def _ask(self, name: str) -> str | None:
        """Ask one model; return what went wrong."""
        try:
            infer = self.manager.infer
            result = infer("text-generation", "transformers", name, {"inputs": PROMPT}, OPTIONS)
        except Exception as error:  # noqa: BLE001 - told, and judged by the test
            return f"{name}: {error!r}"
        text = result["generated_text"]
        return None if text == self.expected[name] else f"{name}: {text!r}"

    @contextmanager
    def _watched(self) -> Iterator[list[int]]:
        """Note the most bytes that the cache says it uses."""
        peak, ended = [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.002):
                peak[0] = max(peak[0], self.manager._cache.stats()["used_bytes"])

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield peak
        finally:
            ended.set()
            thread.join()


def answer(directory: Path) -> str:
    """Return what transformers itself answers."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    encoded = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**encoded, max_new_tokens=TOKENS)
    return str(tokenizer.decode(output[0, encoded["input_ids"].shape[1] :]))


def ideal_hits(sequence: list[str], warm: int) -> int:
    """Return the hits of a cache that always drops the least recently used."""
    cached: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for name in sequence:
        hits += name in cached
        cached[name] = None
        cached.move_to_end(name)
        if len(cached) > warm:
            cached.popitem(last=False)
    return hits


def main() -> None:
    """Go through the load one at a time, then several at a time."""
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    load = Load(Path(sys.argv[1]))
    load.run(AT_ONCE, 3 * AT_ONCE)  # what is made once is made: thread pools, allocators
    report: dict[str, Any] = {"rss_before": load.clear()}
    report["one_at_a_time"] = load.run(1)
    load.clear()
    report["at_once"] = load.run(AT_ONCE)
    report["rss_after"] = load.clear()
    report["ideal_hits"] = ideal_hits(load.sequence, WARM)
    load.manager.close()
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
