"""Trees as stored: one JSON manifest per distinct tree, named by its content."""

import hashlib
import json
from dataclasses import asdict
from types import MappingProxyType

from embedded.lakefs.model import Entry, Tree

#: The id of the tree that the first commit of a repository has.
EMPTY = ""


def identify(tree: Tree) -> str:
    """Return the id that trees with the same entries share."""
    if not tree:
        return EMPTY
    content = json.dumps([[path, tree[path].identity] for path in sorted(tree)])
    return hashlib.sha256(content.encode()).hexdigest()


def encode(tree: Tree) -> str:
    """Return the manifest of `tree`."""
    return json.dumps({path: asdict(tree[path]) for path in sorted(tree)})


def decode(manifest: str) -> Tree:
    """Read a manifest."""
    return MappingProxyType({path: Entry(**entry) for path, entry in json.loads(manifest).items()})
