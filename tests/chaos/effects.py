"""What the jobs should have done to staging area, lakeFS and MLflow: once, and wholly."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from shared.errors import NotFoundError
from shared.lakefs.store import LakeFSStore
from shared.registry import ModelRegistry
from shared.settings import LakeFSSettings, MLflowSettings
from tests.chaos.accounting import Books
from tests.chaos.world import Digests, digests
from tests.processes import wait_until
from workers.lifecycle.version_branches import PREFIX

Json = dict[str, Any]

#: Workers delete what jobs left in lakeFS every two seconds; a busy machine gets more time.
SWEEP_SECONDS = 30


def check_staging(books: Books, staging: Path, expected: dict[str, Digests]) -> None:
    """Every downloaded model is there, with its own bytes, and nothing half made beside it."""
    wanted = {job["result"]["local_model_name"] for job in _succeeded(books, "download")}
    found = {path.name for path in staging.iterdir() if not path.name.startswith(".")}
    for name in sorted(wanted - found):
        books.wrong("effect", name, "downloaded, and not in the staging area")
    for name in sorted(found):
        if digests(staging / name) != expected[name]:
            books.wrong("effect", name, "its staged files are not those of the hub")
    left = {path.name for path in (staging / ".partial").glob("*")} & wanted
    for name in sorted(left):
        books.wrong("effect", name, "partial files of a model that is whole")


def check_snapshots(books: Books, snapshots: Path, expected: dict[str, Digests]) -> None:
    """Every finished snapshot has its model's bytes."""
    for directory in snapshots.glob("[!.]*/*/*"):
        # Workers preload what has priority in MLflow, where other tests have models too.
        if directory.name in expected and digests(directory) != expected[directory.name]:
            books.wrong("effect", str(directory), "its files are not those of the model")


def check_lakefs(books: Books, settings: LakeFSSettings, expected: dict[str, Digests]) -> None:
    """Every upload made one commit, with its model's bytes; the jobs' own branches are gone."""
    uploads = [job for job in books.jobs.values() if job["kind"] == "upload"]
    by_repo: defaultdict[str, list[Json]] = defaultdict(list)
    for job in uploads:
        by_repo[job["request"]["repo_name"]].append(job)
    with closing(LakeFSStore(settings)) as store:
        for repo, jobs in sorted(by_repo.items()):
            try:
                commits = _commits(store, repo)
            except NotFoundError:
                commits = Counter()  # if all were cancelled, nobody made it
            _check_once(books, jobs, commits, "commits")
            for job in jobs:
                if job["state"] == "succeeded":
                    _check_upload(books, store, job, expected)
            for branch in _left(store, repo) if commits else ():
                books.wrong("effect", repo, f"branch {branch} is left")


def check_mlflow(books: Books, url: str) -> None:
    """Every registration made one version."""
    registry = ModelRegistry(MLflowSettings(tracking_uri=url))
    versions = Counter(each.tags["job_id"] for each in registry.list_models(show_all=True))
    _check_once(
        books,
        [job for job in books.jobs.values() if job["kind"] == "register"],
        versions,
        "versions",
    )


def _check_once(books: Books, jobs: Iterable[Json], made: Counter[str], what: str) -> None:
    """A job that succeeded has its effect once; one that did not, at most once."""
    for job in jobs:
        count, job_id = made[job["job_id"]], job["job_id"]
        if count > 1 or (count == 0 and job["state"] == "succeeded"):
            books.wrong("effect", job_id, f"{job['state']} {job['kind']} has {count} {what}")


def _check_upload(
    books: Books, store: LakeFSStore, job: Json, expected: dict[str, Digests]
) -> None:
    request = job["request"]
    name = request["local_model_name"]
    files = store.files(request["repo_name"], job["result"]["branch"], name, missing_ok=True)
    if {file.path: file.sha256 for file in files} != expected[name]:
        books.wrong("effect", job["job_id"], f"{name} on the branch is not what was uploaded")


def _commits(store: LakeFSStore, repo: str) -> Counter[str]:
    """Return the commits on the main branch by their jobs."""
    control = store._control
    log = control.pages(control.refs.log_commits, repo, "main", first_parent=True)
    return Counter((commit.metadata or {}).get("job_id", "") for commit in log)


def _left(store: LakeFSStore, repo: str) -> list[str]:
    """Return the branches of jobs that are still there when the workers had time to sweep."""
    with suppress(AssertionError):
        wait_until(lambda: not _of_jobs(store, repo), SWEEP_SECONDS)
    return _of_jobs(store, repo)


def _of_jobs(store: LakeFSStore, repo: str) -> list[str]:
    control = store._control
    found = control.pages(control.branches.list_branches, repo)
    return [each.id for each in found if each.id != "main" and not each.id.startswith(PREFIX)]


def _succeeded(books: Books, kind: str) -> Iterator[Json]:
    for job in books.jobs.values():
        if job["kind"] == kind and job["state"] == "succeeded":
            yield job
