"""The part of a file that a request asks for (RFC 9110, section 14)."""

import re

from embedded.hub.errors import RangeError

_SINGLE_RANGE = re.compile(r"bytes=(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))")


def parse_range(header: str | None, size_bytes: int) -> range | None:
    """Return the asked bytes; None for the whole file, which answers what is not understood too."""
    match = _SINGLE_RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size_bytes - int(suffix)), size_bytes
    else:
        start, stop = int(first), min(size_bytes, int(last) + 1 if last else size_bytes)
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeError(size_bytes)
    return range(start, stop)
