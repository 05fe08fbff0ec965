BEGIN TRANSACTION;
CREATE TABLE branches (
    repository TEXT NOT NULL REFERENCES repositories ON DELETE CASCADE,
    id TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    PRIMARY KEY (repository, id)
) WITHOUT ROWID;
INSERT INTO "branches" VALUES('old','dev','23320136b7e114cba81dadfec80c37f0dada16e07b3d042f35bad1c0fd6db1c0',0);
INSERT INTO "branches" VALUES('old','main','ba949d2e22a6068a11c3b652fccbeeb865e51b24bb73af1a1efbc7aad36dba06',0);
CREATE TABLE commits (
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
INSERT INTO "commits" VALUES('old','23320136b7e114cba81dadfec80c37f0dada16e07b3d042f35bad1c0fd6db1c0','["4c0bb878cdda19b27af2f9aa720d2493c2b5f4e10192a2d175c76e31bb0e98f6"]','admin','dev',1795915407222582770,'29c908f070bdac110d3c24bec7fd302868338a65e6519a1d0a08137154ae5519',3,'{}');
INSERT INTO "commits" VALUES('old','492dbc28de74aeda1bc91e67b56073ab139e3ff641cf9ed11a30bb0ce2a74997','[]','','Repository created',1795915406870550192,'',1,'{}');
INSERT INTO "commits" VALUES('old','4c0bb878cdda19b27af2f9aa720d2493c2b5f4e10192a2d175c76e31bb0e98f6','["492dbc28de74aeda1bc91e67b56073ab139e3ff641cf9ed11a30bb0ce2a74997"]','admin','first',1795915407169934438,'221dcf21e8ade088d91d3591e35d27df4d9d09cb1b12c5ccd41188f5e1fdcff9',2,'{"job": "1"}');
INSERT INTO "commits" VALUES('old','ba949d2e22a6068a11c3b652fccbeeb865e51b24bb73af1a1efbc7aad36dba06','["4c0bb878cdda19b27af2f9aa720d2493c2b5f4e10192a2d175c76e31bb0e98f6"]','admin','second',1795915407248238338,'b8f427e1727d7838bdb6e80cd7d183a1592a4de9b02145338fb9090484d1d718',3,'{}');
CREATE TABLE installation (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    access_key_id TEXT NOT NULL,
    secret_access_key TEXT NOT NULL
);
CREATE TABLE namespaces (
    namespace TEXT PRIMARY KEY        -- stays taken when its repository is deleted, as in lakeFS
) WITHOUT ROWID;
INSERT INTO "namespaces" VALUES('local://old');
CREATE TABLE received (
    upload_id TEXT PRIMARY KEY,       -- a presigned upload, which may be linked for a day
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    received INTEGER NOT NULL         -- unix seconds
) WITHOUT ROWID;
CREATE TABLE repositories (
    id TEXT PRIMARY KEY,
    storage_namespace TEXT NOT NULL,
    default_branch TEXT NOT NULL,
    created INTEGER NOT NULL,         -- unix seconds
    read_only INTEGER NOT NULL,
    metadata TEXT NOT NULL            -- JSON object
) WITHOUT ROWID;
INSERT INTO "repositories" VALUES('old','local://old','main',1795915406,0,'{}');
CREATE TABLE staged (
    repository TEXT NOT NULL,
    branch TEXT NOT NULL,
    path TEXT NOT NULL,
    entry TEXT,                       -- JSON object, or NULL where the path was deleted
    PRIMARY KEY (repository, branch, path),
    FOREIGN KEY (repository, branch) REFERENCES branches ON DELETE CASCADE
) WITHOUT ROWID;
INSERT INTO "staged" VALUES('old','main','model/2',NULL);
INSERT INTO "staged" VALUES('old','main','model/staged','{"digest": "7af9873516fbe75e9433d05524ce341e2a60a9f3e215cc5ee0a0b3800ce02dc8", "checksum": "efa051e57c31d02bebd4b13beda7925b", "size_bytes": 11, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {}}');
CREATE TABLE tags (
    repository TEXT NOT NULL REFERENCES repositories ON DELETE CASCADE,
    id TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    PRIMARY KEY (repository, id)
) WITHOUT ROWID;
INSERT INTO "tags" VALUES('old','v1','4c0bb878cdda19b27af2f9aa720d2493c2b5f4e10192a2d175c76e31bb0e98f6');
CREATE TABLE trees (
    id TEXT PRIMARY KEY,
    manifest TEXT NOT NULL            -- JSON object: path -> entry
);
INSERT INTO "trees" VALUES('221dcf21e8ade088d91d3591e35d27df4d9d09cb1b12c5ccd41188f5e1fdcff9','{"model/0": {"digest": "822beb0d1729878ad343b6c35b1d5e45e62f8e36b6543c2312b6f1cb6d00cdef", "checksum": "497e67dc6be0b9ba02f3dc5a1a6e43c9", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "0"}}, "model/1": {"digest": "900a4469df00ccbfd0c145c6d1e4b7953dd0afafadd7534e3a4019e8d38fc663", "checksum": "6c69ee7f211c640419d5366cc076ae46", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "1"}}, "model/2": {"digest": "ad0387b3bd8652f730ca46d25f9c170af0fd589f42e7f23f5a9e6412d97d7e56", "checksum": "bb3438fbabd460ea6dbd27d153e2233b", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "2"}}, "model/3": {"digest": "65ca03e4108b9338827ea3b3f28f6a515d869b40363384e5e2f675f80bc48be6", "checksum": "84d5fb0de5d7daeb0dfb9b4cbdca2f86", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "3"}}, "model/4": {"digest": "b47c67e6c66feeeaf2409bcfd364a4ee7fd35d68b9da03838f38f4099faa14ca", "checksum": "f4b09bcc88b03e2704ada1bfd5174c57", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "4"}}}');
INSERT INTO "trees" VALUES('29c908f070bdac110d3c24bec7fd302868338a65e6519a1d0a08137154ae5519','{"model/0": {"digest": "822beb0d1729878ad343b6c35b1d5e45e62f8e36b6543c2312b6f1cb6d00cdef", "checksum": "497e67dc6be0b9ba02f3dc5a1a6e43c9", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "0"}}, "model/2": {"digest": "ad0387b3bd8652f730ca46d25f9c170af0fd589f42e7f23f5a9e6412d97d7e56", "checksum": "bb3438fbabd460ea6dbd27d153e2233b", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "2"}}, "model/3": {"digest": "65ca03e4108b9338827ea3b3f28f6a515d869b40363384e5e2f675f80bc48be6", "checksum": "84d5fb0de5d7daeb0dfb9b4cbdca2f86", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "3"}}, "model/4": {"digest": "b47c67e6c66feeeaf2409bcfd364a4ee7fd35d68b9da03838f38f4099faa14ca", "checksum": "f4b09bcc88b03e2704ada1bfd5174c57", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "4"}}, "model/new": {"digest": "a56df7f6aba90cf912057d63cd48279559d724917cce513bc975a8bba8e109b5", "checksum": "3fdcd1e8ff3c2180b5896accf62aee12", "size_bytes": 8, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {}}}');
INSERT INTO "trees" VALUES('b8f427e1727d7838bdb6e80cd7d183a1592a4de9b02145338fb9090484d1d718','{"model/0": {"digest": "d6ec34709c3e783603bf7347959843fe9c1fc86a62f21cbd328ac709e3948395", "checksum": "c1b543eae957b255eef3966eefda66b6", "size_bytes": 10, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {}}, "model/1": {"digest": "900a4469df00ccbfd0c145c6d1e4b7953dd0afafadd7534e3a4019e8d38fc663", "checksum": "6c69ee7f211c640419d5366cc076ae46", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "1"}}, "model/2": {"digest": "ad0387b3bd8652f730ca46d25f9c170af0fd589f42e7f23f5a9e6412d97d7e56", "checksum": "bb3438fbabd460ea6dbd27d153e2233b", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "2"}}, "model/3": {"digest": "65ca03e4108b9338827ea3b3f28f6a515d869b40363384e5e2f675f80bc48be6", "checksum": "84d5fb0de5d7daeb0dfb9b4cbdca2f86", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "3"}}, "model/4": {"digest": "b47c67e6c66feeeaf2409bcfd364a4ee7fd35d68b9da03838f38f4099faa14ca", "checksum": "f4b09bcc88b03e2704ada1bfd5174c57", "size_bytes": 6, "mtime": 1795915407, "content_type": "application/octet-stream", "metadata": {"n": "4"}}}');
COMMIT;
