"""One SQLite file for everything but bytes, and the transactions on it."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from embedded.lakefs import trees
from embedded.lakefs.model import Entry
from embedded.lakefs.trees import Tree

#: How many decoded trees and parts stay in memory; they never change, so they never go stale.
CACHED_TREES = 16
CACHED_PARTS = 512
#: The form that the file has: in the first one a tree was one JSON object, path -> entry.
FORM = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS installation (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    access_key_id TEXT NOT NULL,
    secret_access_key TEXT NOT NULL,
    username TEXT NOT NULL DEFAULT 'admin'
);
CREATE TABLE IF NOT EXISTS namespaces (
    namespace TEXT PRIMARY KEY        -- stays taken when its repository is deleted, as in lakeFS
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repositories (
    id TEXT PRIMARY KEY,
    storage_namespace TEXT NOT NULL,
    default_branch TEXT NOT NULL,
    created INTEGER NOT NULL,         -- unix seconds
    read_only INTEGER NOT NULL,
    metadata TEXT NOT NULL            -- JSON object
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trees (
    id TEXT PRIMARY KEY,
    manifest TEXT NOT NULL            -- JSON array of [last path, part id]
);
CREATE TABLE IF NOT EXISTS parts (
    id TEXT PRIMARY KEY,
    entries TEXT NOT NULL             -- JSON object: path -> entry
);
CREATE TABLE IF NOT EXISTS commits (
    repository TEXT NOT NULL REFERENCES repositories ON DELETE CASCADE,
    id TEXT NOT NULL,
    parents TEXT NOT NULL,            -- JSON array
    committer TEXT NOT NULL,
    message TEXT NOT NULL,
    created_ns INTEGER NOT NULL,      -- unix nanoseconds
    tree_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    metadata TEXT NOT NULL,           -- JSON object
    PRIMARY KEY (repository, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS branches (
    repository TEXT NOT NULL REFERENCES repositories ON DELETE CASCADE,
    id TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    PRIMARY KEY (repository, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (
    repository TEXT NOT NULL REFERENCES repositories ON DELETE CASCADE,
    id TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    PRIMARY KEY (repository, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS staged (
    repository TEXT NOT NULL,
    branch TEXT NOT NULL,
    path TEXT NOT NULL,
    entry TEXT,                       -- JSON object, or NULL where the path was deleted
    PRIMARY KEY (repository, branch, path),
    FOREIGN KEY (repository, branch) REFERENCES branches ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS received (
    upload_id TEXT PRIMARY KEY,       -- a presigned upload, which may be linked for a day
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    received INTEGER NOT NULL         -- unix seconds
) WITHOUT ROWID;
"""


class Transaction:
    """Reads and writes that happen together or not at all."""

    def __init__(self, connection: sqlite3.Connection, tree: Callable[[str], Tree]) -> None:
        self._connection = connection
        #: Returns the tree with the given id.
        self.tree = tree

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Return every row."""
        return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        """Return the first row, if there is one."""
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def each(self, sql: str, *values: object) -> Iterator[sqlite3.Row]:
        """Yield the rows one by one, until the transaction ends."""
        return iter(self._connection.execute(sql, values))

    def run(self, sql: str, *values: object) -> int:
        """Change rows and return how many."""
        return self._connection.execute(sql, values).rowcount

    def keep_tree(self, tree: Tree) -> str:
        """Store the list of the tree's parts, unless it is stored, and return its id."""
        tree_id, manifest = tree.encoded()
        if tree_id != trees.EMPTY:
            self.run("INSERT OR IGNORE INTO trees VALUES (?, ?)", tree_id, manifest)
        return tree_id


class _StoredParts:
    """The parts of trees in the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.entries = lru_cache(CACHED_PARTS)(self._read)

    def keep(self, part_id: str, encoded: str) -> None:
        """Store a part, which may be stored already."""
        self._connection.execute("INSERT OR IGNORE INTO parts VALUES (?, ?)", (part_id, encoded))

    def _read(self, part_id: str) -> Mapping[str, Entry]:
        query = "SELECT entries FROM parts WHERE id = ?"
        (encoded,) = self._connection.execute(query, (part_id,)).fetchone()
        return trees.decode_part(encoded)


class Database:
    """One connection that threads take turns on; a transaction lasts milliseconds."""

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # an answered commit is on disk
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.executescript(SCHEMA)
        self._parts = _StoredParts(self._connection)
        self._tree = lru_cache(CACHED_TREES)(self._read_tree)
        self._convert()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commit what happens inside, or undo all of it when it raises."""
        with self._turn:
            self._connection.execute("BEGIN")
            try:
                yield Transaction(self._connection, self._tree)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        with self._turn:
            self._connection.close()

    def _read_tree(self, tree_id: str) -> Tree:
        if tree_id == trees.EMPTY:
            return Tree((), self._parts)
        query = "SELECT manifest FROM trees WHERE id = ?"
        (manifest,) = self._connection.execute(query, (tree_id,)).fetchone()
        return trees.decode(manifest, self._parts)

    def _convert(self) -> None:
        """Bring a file of the first form into the present one; the trees keep their ids."""
        (form,) = self._connection.execute("PRAGMA user_version").fetchone()
        if form >= FORM:
            return
        with self.transaction() as tx:
            columns = [name for _, name, *_ in tx.all("PRAGMA table_info(installation)")]
            if "username" not in columns:
                tx.run("ALTER TABLE installation ADD username TEXT NOT NULL DEFAULT 'admin'")
            for (tree_id,) in tx.all("SELECT id FROM trees"):
                for (old,) in tx.all("SELECT manifest FROM trees WHERE id = ?", tree_id):
                    tree = Tree((), self._parts).with_changes(trees.decode_part(old))
                    _, manifest = tree.encoded()
                    tx.run("UPDATE trees SET manifest = ? WHERE id = ?", manifest, tree_id)
            tx.run(f"PRAGMA user_version = {FORM}")
