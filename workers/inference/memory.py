"""Memory of this process, given back."""

import ctypes
import gc
import platform
from functools import cache


@cache
def set_memory_aside() -> None:
    """Leave what is in memory now out of later collections; once in a process.

    For when the large packages are imported and no model is loaded: each unload collects, which
    stops all threads, 0.4 s with all that transformers brings and 5 ms without.
    """
    gc.collect()
    gc.freeze()


def release_memory() -> None:
    """Collect what nothing refers to, and give freed memory back to the system.

    glibc keeps what was freed: without the trim the process stays as large as it was.
    """
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
