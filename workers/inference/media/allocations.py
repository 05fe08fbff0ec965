"""A limit to what FFmpeg may allocate at once.

The index of an MP4 file of ten kilobytes can say that it has billions of frames, and FFmpeg makes
room for all of them before it reads the first. PyAV does not offer FFmpeg's own limit, so it is
set in the library that PyAV has loaded; FFmpeg's default is 2 GiB.
"""

import ctypes
from functools import cache
from pathlib import Path

import av
import structlog

#: More than the largest frame that is decoded takes, and than a whole file's honest index.
MAX_ALLOCATION_BYTES = 64 * 1024 * 1024
#: Each stream has an index of its own.
MAX_STREAMS = 16

log = structlog.get_logger()


@cache
def limit_allocations() -> bool:
    """Set the limit for this process, once; return whether that was possible."""
    library = _loaded_library()
    if library is None:
        log.warning(
            "FFmpeg's memory is not limited: its library was not found", pyav=av.__version__
        )
        return False
    set_limit = ctypes.CDLL(library).av_max_alloc
    set_limit.argtypes, set_limit.restype = [ctypes.c_size_t], None
    set_limit(MAX_ALLOCATION_BYTES)
    return True


def _loaded_library() -> str | None:
    """Return the path of the libavutil in this process; PyAV's wheels bring their own."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[-1] for line in maps.splitlines() if "libavutil" in line)
    return next(paths, None)
