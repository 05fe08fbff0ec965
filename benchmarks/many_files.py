"""A model of 5,000 small files through the upload, beside lakeFS' own package with 16 threads."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lakefs
from lakefs.client import Client

from benchmarks.stack import Stack
from shared.lakefs.store import LakeFSStore

FILES, THREADS = 5_000, 16
NAME = "many-files"


def measure_many_files(stack: Stack) -> None:
    """Print the seconds of both, of the upload again without changes, and of the final check."""
    directory = stack.platform.staging / NAME
    directory.mkdir(parents=True)
    for number in range(FILES):
        (directory / f"{number:05d}.json").write_text(f'{{"number": {number}}}' * 20)

    def upload() -> None:
        stack.platform.done("/models/upload_to_lakefs", repo_name=NAME, local_model_name=NAME)

    store = LakeFSStore(stack.lakefs)
    beside = _seconds(lambda: _by_package(stack, store, directory))
    ours, again = _seconds(upload), _seconds(upload)
    check = _seconds(lambda: store.files(NAME, "main", NAME))
    store.close()
    print(
        f"{FILES:,} files, the package {beside:5.1f} s  ours {ours:5.1f} s  {ours / beside:.2f} x"
    )
    print(f"unchanged again {again:.1f} s; the listing that checks the commit {check:.2f} s")


def _by_package(stack: Stack, store: LakeFSStore, directory: Path) -> None:
    """Upload, commit and merge as a user of lakeFS' package would."""
    name = store.ensure_repository(f"{NAME}-beside").name
    keys = stack.lakefs
    client = Client(  # type: ignore[no-untyped-call]
        host=keys.endpoint,
        username=keys.access_key_id,
        password=keys.secret_access_key.get_secret_value(),
    )
    repository = lakefs.Repository(name, client)
    branch = repository.branch("work").create("main")

    def put(path: Path) -> None:
        branch.object(f"{NAME}/{path.name}").upload(path.read_bytes(), mode="wb", pre_sign=False)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, directory.iterdir()))
    branch.commit("many files")
    branch.merge_into(repository.branch("main"))


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
