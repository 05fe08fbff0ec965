"""What a crash or a deletion left behind is removed when the server starts."""

import time

from embedded.lakefs.blobs import BlobStore
from embedded.lakefs.database import Database
from embedded.lakefs.presigning import ADDRESS_SECONDS

_USED = """
SELECT json_extract(entry.value, '$.digest') FROM parts, json_each(parts.entries) AS entry
UNION SELECT json_extract(entry, '$.digest') FROM staged WHERE entry IS NOT NULL
UNION SELECT digest FROM received
"""

_UNUSED_PARTS = """
DELETE FROM parts WHERE id NOT IN (
    SELECT json_extract(part.value, '$[1]') FROM trees, json_each(trees.manifest) AS part
)
"""


def sweep(database: Database, blobs: BlobStore) -> None:
    """Delete trees without commits, parts without trees, uploads never linked, and their blobs."""
    oldest = time.time() - ADDRESS_SECONDS
    with database.transaction() as tx:
        tx.run("DELETE FROM trees WHERE id NOT IN (SELECT tree_id FROM commits)")
        tx.run(_UNUSED_PARTS)
        tx.run("DELETE FROM received WHERE received < ?", oldest)
        used = {digest for (digest,) in tx.all(_USED)}
    blobs.sweep(used, parts_after=oldest)
