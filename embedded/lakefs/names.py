"""Which names repositories, branches, tags and objects may have (lakeFS's rules)."""

import re

from embedded.lakefs.errors import InvalidError

MAX_PATH_BYTES = 1024

_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")
_BRANCH = re.compile(r"\w[-\w]*", re.ASCII)
_NOT_IN_TAG = re.compile(r"[\x00-\x20^:?*\[\\/]|\.\.|@\{")
_NAMESPACE = re.compile(r"local://.+")


def check_repository(name: str) -> None:
    """Refuse a name that no repository can have."""
    if not _REPOSITORY.fullmatch(name):
        raise InvalidError("argument repository: repository id: invalid value: validation error")


def check_branch(name: str) -> None:
    """Refuse a name that no branch can have."""
    if not _BRANCH.fullmatch(name):
        raise InvalidError(
            "argument branch: branch id: invalid value: validation error: branch id must consist"
            " of letters, digits, underscores and dashes, and cannot start with a dash"
        )


def check_tag(name: str) -> None:
    """Refuse a name that no tag can have; the rules are nearly those of git."""
    if name in {"", "@"} or name.endswith((".", ".lock")) or _NOT_IN_TAG.search(name):
        raise InvalidError("argument tagID: tag id: invalid value: validation error")


def check_path(path: str) -> None:
    """Refuse a path that no object can have."""
    if not path:
        raise InvalidError("argument path: missing path: required value: validation error")
    if (size := len(path.encode())) > MAX_PATH_BYTES:
        raise InvalidError(
            f"argument path: invalid value: validation error:"
            f" {size} is above maximum length ({MAX_PATH_BYTES})"
        )


def check_namespace(namespace: str) -> None:
    """Refuse a storage namespace that is not on the local disk."""
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidError("failed to match required regex ^local://: invalid namespace")
