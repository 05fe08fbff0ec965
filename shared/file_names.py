"""The one rule for the names of a model's files, from the hub to the engine.

Download, staging area, registration and snapshots all apply it, so a name that one of them accepts
is stored and served by all. The characters are judged by the Unicode version of this Python, which
is the same in all processes of an installation.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from shared.errors import UnsafeModelError

#: What Linux' file systems take as one segment of a path.
MAX_SEGMENT_BYTES = 255
#: What lakeFS takes as an object's path.
MAX_PATH_BYTES = 1024
#: Names that need no look at their characters: printable ASCII without the backslash.
_PLAIN = re.compile(r"[ -\[\]-~]+")
#: Categories of Unicode that no name may have: they are invisible, break lines or mean nothing.
_REFUSED_CATEGORIES = {
    "Cc": "control character",
    "Cf": "format character",
    "Cn": f"not assigned in Unicode {unicodedata.unidata_version}",
    "Co": "private use",
    "Cs": "lone surrogate",
    "Zl": "line separator",
    "Zp": "paragraph separator",
}
_JOINER = "\u200d"
_EMOJI_STYLE = "\ufe0f"
#: How Python shows a byte of a file name on disk that is not UTF-8.
_UNDECODED_BYTES = range(0xDC80, 0xDD00)
_SHOWN_CHARACTERS = 120


def check_file_names(
    paths: Iterable[str],
    model: str,
    *,
    directory: str = "",
    reserved: str | None = None,
    field: str | None = None,
) -> None:
    """Raise UnsafeModelError unless all paths can be files of one model, stored and served.

    ``model`` says in the error which model it is. ``directory`` is where the paths are going to be,
    and counts for their length. ``reserved`` is a name that the top level must not have.
    """
    if directory and (fault := _fault(directory)):
        raise _refused(model, directory, fault, field)
    files: set[str] = set()
    for path in paths:
        fault = _fault(f"{directory}/{path}" if directory else path)
        if fault is None and path in files:
            fault = "the name is there twice"
        if fault is None and path.partition("/")[0] == reserved:
            fault = f"the platform keeps its own record under the name {reserved!r}"
        if fault is not None:
            raise _refused(model, path, fault, field)
        files.add(path)
    for path in files:
        for parent in PurePosixPath(path).parents:
            if str(parent) in files:
                fault = f"{_shown(str(parent))} is a file and cannot be a directory too"
                raise _refused(model, path, fault, field)


def _fault(path: str) -> str | None:
    """Return what is wrong with one path, if anything is."""
    if path.endswith("/") and path != "/":
        return "it ends with '/', as markers of empty folders do, and is not a file"
    segments = path.split("/")
    for segment in segments:
        if segment in {"", ".", ".."}:
            return f"a path must not have the segment {segment!r}"
    if not _PLAIN.fullmatch(path):
        for at, character in enumerate(path):
            if not _is_allowed(path, at):
                return f"names must not have {_named(character)}"
    if max(len(segment.encode()) for segment in segments) > MAX_SEGMENT_BYTES:
        return f"a name must not be longer than {MAX_SEGMENT_BYTES} bytes"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"a path, with the model's directory, must not be over {MAX_PATH_BYTES} bytes"
    return None


def _is_allowed(path: str, at: int) -> bool:
    character = path[at]
    if character == _JOINER:
        return _joins_emoji(path, at)
    return character != "\\" and unicodedata.category(character) not in _REFUSED_CATEGORIES


def _joins_emoji(path: str, at: int) -> bool:
    """Return whether a zero width joiner makes one emoji of its two neighbours."""
    before, after = path[at - 1 : at], path[at + 1 : at + 2]
    if not before or not after:
        return False
    joinable = before == _EMOJI_STYLE or unicodedata.category(before) in {"So", "Sk"}
    return joinable and unicodedata.category(after) in {"So", "Sm"}


def _named(character: str) -> str:
    """Describe a refused character, in printable ASCII."""
    code = ord(character)
    if code in _UNDECODED_BYTES:
        return f"the byte 0x{code - 0xDC00:02X}, which is not UTF-8"
    if name := unicodedata.name(character, ""):
        return f"{name} (U+{code:04X})"
    return f"U+{code:04X} ({_REFUSED_CATEGORIES[unicodedata.category(character)]})"


def _shown(path: str) -> str:
    """Return a path as an error shows it: quoted, escaped and not too long."""
    cut = len(path) > _SHOWN_CHARACTERS
    return repr(f"{path[:_SHOWN_CHARACTERS]}..." if cut else path)


def _refused(model: str, path: str, fault: str, field: str | None) -> UnsafeModelError:
    return UnsafeModelError(
        f"{model} has the path {_shown(path)}, which cannot be stored and served: {fault}. "
        "Rename the file, or leave it out of the model",
        field=field,
        code="unsafe_file_name",
    )
