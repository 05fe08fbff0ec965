"""Which model ids, revisions and file paths are legal, and the addresses made of them."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from embedded.hub.errors import InvalidNameError

_SEGMENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")
_API_ACTIONS = frozenset({"revision", "tree", "paths-info", "refs", "auth-check"})
#: Words of the protocol's own addresses, which would be ambiguous as a part of a model id.
_RESERVED = _API_ACTIONS | {"api", "cdn", "resolve", "blob"}


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL asks for: a model, what of it, at which revision, and the path within."""

    model_id: str
    action: str
    revision: str | None
    path: str


def check_model_id(model_id: str) -> str:
    """Return the id, `name` or `org/name`, if it is legal."""
    segments = model_id.split("/")
    legal = len(segments) <= 2 and all(
        _SEGMENT.fullmatch(segment)
        and ".." not in segment
        and "--" not in segment
        and segment not in _RESERVED
        for segment in segments
    )
    if not legal:
        raise InvalidNameError(f"Not a model id: {model_id!r}")
    return model_id


def check_revision(revision: str) -> str:
    """Return the name of a branch, tag or commit if it is legal."""
    parts = revision.split("/")
    if not _REVISION.fullmatch(revision) or not all(parts) or ".." in revision:
        raise InvalidNameError(f"Not a revision: {revision!r}")
    return revision


def check_path(path: str) -> str:
    """Return a path inside a model if it stays inside of it."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", path):
        raise InvalidNameError(f"Not a path in a model: {path!r}")
    return path


def split_path(raw_path: bytes) -> list[str]:
    """Split a URL's path before it is decoded, because a revision may hold `%2F`; decode once."""
    try:
        return [unquote_to_bytes(part).decode() for part in raw_path.split(b"/")[1:]]
    except UnicodeDecodeError as error:
        raise InvalidNameError("The path is not UTF-8") from error


def parse_api(segments: list[str]) -> Address:
    """Read what follows `/api/models/`: `{id}` or `{id}/{action}[/{revision}[/{path}]]`."""
    for width in (1, 2):
        if len(segments) == width:
            return Address(check_model_id("/".join(segments)), "info", None, "")
        if segments[width] in _API_ACTIONS:
            return _address(segments, width)
    raise InvalidNameError("No such address")


def parse_file(segments: list[str], action: str) -> Address | None:
    """Read `{id}/{action}/{revision}/{path}`; None where the address is of another kind."""
    for width in (1, 2):
        if len(segments) > width + 2 and segments[width] == action:
            address = _address(segments, width)
            check_path(address.path)
            return address
    return None


def _address(segments: list[str], width: int) -> Address:
    rest = segments[width + 1 :]
    path = "/".join(rest[1:])
    return Address(
        model_id=check_model_id("/".join(segments[:width])),
        action=segments[width],
        revision=check_revision(rest[0]) if rest else None,
        path=check_path(path) if path else "",
    )
