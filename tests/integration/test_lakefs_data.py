"""What the embedded lakeFS keeps on disk: trees in parts, and data of its first form."""

import hashlib
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from lakefs.repository import Repository

from embedded.lakefs import heads, model, repositories, staging
from embedded.lakefs.database import Database
from embedded.lakefs.heads import Note
from embedded.lakefs.model import Entry, Place
from embedded.lakefs.paging import DEFAULT_PER_PAGE, Paging, cut
from tests.integration.lakefs_contract.steps import commit, paths
from tests.integration.lakefs_server import EmbeddedServer

#: A repository as the server of commit 041e199 stored it, where a tree was one JSON object.
OLD_DATA = Path(__file__).with_name("lakefs_data_041e199.sql")
OLD_TEXTS = ["text 0", "text 1", "text 2", "text 3", "text 4", "text new", "text again"]


def catalog(data: Path) -> sqlite3.Connection:
    return sqlite3.connect(data / "catalog.sqlite3")


def stored_bytes(data: Path) -> int:
    with closing(catalog(data)) as database:
        (trees,) = database.execute("SELECT sum(length(manifest)) FROM trees").fetchone()
        (parts,) = database.execute("SELECT sum(length(entries)) FROM parts").fetchone()
    return int(trees + parts)


def old_data(data: Path) -> None:
    """Lay out the files of a server of commit 041e199."""
    (data / "blobs").mkdir(parents=True)
    for text in [*OLD_TEXTS, "text staged", "text that nothing names"]:
        (data / "blobs" / hashlib.sha256(text.encode()).hexdigest()).write_text(text)
    with closing(catalog(data)) as database:
        database.executescript(OLD_DATA.read_text())


def test_data_of_the_first_form_is_read_and_written(tmp_path: Path) -> None:
    old_data(tmp_path)
    for merged in (False, True):  # the second start finds the new form
        with EmbeddedServer(tmp_path) as server:
            repository = Repository("old", server.client())
            main, first = repository.branch("main"), repository.tag("v1")
            assert [item.message for item in main.log()][-2:] == ["first", "Repository created"]
            assert [first.object(f"model/{n}").reader("r").read() for n in range(5)] == (
                OLD_TEXTS[:5]
            )
            assert first.object("model/3").stat().metadata == {"n": "3"}
            if not merged:
                assert main.object("model/staged").reader("r").read() == "text staged"
                assert {item.path: item.type for item in main.uncommitted()} == {
                    "model/2": "removed",
                    "model/staged": "added",
                }
                main.commit("third")
                assert {item.path for item in main.diff("dev")} == {"model/1", "model/new"}
                repository.branch("dev").merge_into(main)
            assert paths(main) == [f"model/{name}" for name in ("0", "3", "4", "new", "staged")]
            assert main.object("model/0").reader("r").read() == "text again"
    # Only what nothing names is gone.
    assert len(list((tmp_path / "blobs").iterdir())) == len([*OLD_TEXTS, "text staged"])


def test_a_commit_of_one_file_stores_what_one_file_needs(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        main = Repository("parts", server.client()).create("local://parts").branch("main")
        commit(main, "many", **{f"model/{number:03}": "x" for number in range(200)})
        before = stored_bytes(tmp_path)
        for number in range(5):
            commit(main, "one more", **{f"model/{number:03}-more": "y"})
        assert (stored_bytes(tmp_path) - before) / 5 < before / 2


def test_parts_of_trees_that_are_gone_go_at_the_next_start(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        for name in ("kept", "dropped"):
            repository = Repository(name, server.client()).create(f"local://{name}")
            commit(repository.branch("main"), "one", both="both", own=name)
        repository.delete()
    with EmbeddedServer(tmp_path) as server:
        main = Repository("kept", server.client()).branch("main")
        assert [main.object(path).reader("r").read() for path in paths(main)] == ["both", "kept"]
        with closing(catalog(tmp_path)) as database:
            (count,) = database.execute("SELECT count(*) FROM parts").fetchone()
        assert count == 1
        assert len(list((tmp_path / "blobs").iterdir())) == 2


def entry(number: int) -> Entry:
    digest = f"{number:064x}"
    return Entry(digest, digest[:32], number, 1, "application/octet-stream", {"sha256": digest})


def stage(database: Database, repository: str, *numbers: int) -> None:
    with database.transaction() as tx:
        for number in numbers:
            place = Place(repository, "main", f"model/{number % 37}/{number:06}")
            staging.put(tx, place, entry(number))


def commit_seconds(database: Database, repository: str) -> float:
    """Commit what is staged and return the processor time that it took."""
    started = time.thread_time()
    with database.transaction() as tx:
        heads.commit(tx, repository, "main", Note("somebody", "one more"))
    return time.thread_time() - started


def test_a_commit_onto_many_files_costs_what_one_onto_few_does(tmp_path: Path) -> None:
    sizes = {"few": 10, "many": 10_000}
    seconds: dict[str, list[float]] = {"few": [], "many": []}
    with closing(Database(tmp_path / "catalog.sqlite3")) as database:
        for name, size in sizes.items():
            with database.transaction() as tx:
                created = model.Repository(name, f"local://{name}", "main", 1, False, {})
                repositories.create(tx, created)
            stage(database, name, *range(size))
        started = time.thread_time()
        assert pages_of(database, "many") == 10_000 // DEFAULT_PER_PAGE
        assert time.thread_time() - started < 2
        for name in sizes:
            commit_seconds(database, name)
        for number in range(20_000, 20_030):
            for name, measured in seconds.items():
                stage(database, name, number)
                measured.append(commit_seconds(database, name))
    # The least of each: other processes on the machine only ever add to it.
    assert min(seconds["many"]) < 3 * min(seconds["few"])


def pages_of(database: Database, repository: str) -> int:
    """List everything on the branch page by page and return how many pages that took."""
    after, pages = "", 0
    with database.transaction() as tx:
        while True:
            page = cut(staging.walk_at(tx, repository, "main"), Paging(after=after))
            pages += 1
            if not page.has_more:
                return pages
            after = page.items[-1][0]
