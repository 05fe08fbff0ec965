"""Memory of this process and of its host."""

import ctypes
import gc
import platform

import psutil


def release_memory() -> None:
    """Give freed memory back to the system.

    glibc keeps what was freed: after a model is gone the process stays as large until it is trimmed.
    """
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_host_bytes() -> int:
    """Return what the host could give to a process now."""
    return int(psutil.virtual_memory().available)
