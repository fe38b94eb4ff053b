"""What the C library does with freed memory: back to the system at once, or kept for the next tensor."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of malloc.h
_NEVER = -1
_LARGE_BYTES = 1 << 25  # the most that glibc takes
_MAPS = 65536  # glibc's own choice


def keep_freed_memory(large: bool) -> None:
    """Keep what is freed for the next tensor, for work that takes and frees the same again and again.

    By default glibc maps every large tensor anew, and gives up the end of the heap whenever it is free: each step of a
    training then waits for the system to clear gigabytes of pages.

    Args:
        large: Also what tensors above 32 MiB took. The peak may come near to twice as much, as what is free cannot
            always be used.
    """
    _set({_M_TRIM_THRESHOLD: _NEVER, _M_MMAP_THRESHOLD: _LARGE_BYTES, _M_MMAP_MAX: 0 if large else _MAPS})


def much_memory_left() -> bool:
    """Whether this process never took more than a third of what the machine, or its container, has."""
    if sys.platform != "linux":
        return False
    import resource

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or none with a limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return 3 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < total


def return_freed_memory() -> None:
    """Give back what is free, and from now on every large tensor as soon as it is freed, for work that must stay small.

    Smaller tensors stay, as a network's own come and go all the time.
    """
    _set({_M_TRIM_THRESHOLD: 2 * _LARGE_BYTES, _M_MMAP_THRESHOLD: _LARGE_BYTES, _M_MMAP_MAX: _MAPS})
    if library := _glibc():
        library.malloc_trim(0)


def _set(values: dict[int, int]) -> None:
    if library := _glibc():
        for name, value in values.items():
            library.mallopt(name, value)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            if library.mallopt and library.malloc_trim:
                return library
    return None
