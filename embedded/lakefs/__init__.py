"""A small server that speaks lakeFS's REST API, for machines without a lakeFS.

Bytes are content-addressed blobs on disk (`blobs`), everything else is rows in
one SQLite file (`database`).  A commit points at a tree, a tree maps paths to
entries, and an entry names a blob; a branch adds a staging area on top of the
commit that it points at.  Noun modules hold the rules, `routes` speaks HTTP.
"""
