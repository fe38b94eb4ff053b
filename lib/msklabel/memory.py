"""What becomes of freed memory, a GPU's too: back to the system at once, or kept for the next tensor."""

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
_KEPT_ON_GPU_BYTES = 1 << 30  # that the next inference may find again; more is for the others on the GPU


def keep_freed_memory(large: bool) -> None:
    """Keep what is freed for the next tensor, for work that takes and frees the same again and again.

    By default glibc maps every large tensor anew, and gives up the end of the heap whenever it is free: each step of a
    training then waits for the system to clear gigabytes of pages.

    Args:
        large: Also what tensors above 32 MiB took. The peak may come near to twice as much, as what is free cannot
            always be used.
    """
    _set({_M_TRIM_THRESHOLD: _NEVER, _M_MMAP_THRESHOLD: _LARGE_BYTES, _M_MMAP_MAX: 0 if large else _MAPS})


def much_memory_left(device: str = "cpu") -> bool:
    """Whether there is room for models that could wait.

    Args:
        device: On a processor, this process must never have taken more than a third of what the machine, or its
            container, has; on a GPU, half of its memory must be free now, whoever uses it.
    """
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return 2 * (free + _unused_on_gpu(device)) >= total
    if sys.platform != "linux":
        return False
    import resource

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or none with a limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return 3 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < total


def return_freed_memory() -> None:
    """Give back what is free, and from now on every large tensor as soon as it is freed, for work that must stay small.

    Smaller tensors stay, as a network's own come and go all the time. What is free on GPUs is given back, too.
    """
    _set({_M_TRIM_THRESHOLD: 2 * _LARGE_BYTES, _M_MMAP_THRESHOLD: _LARGE_BYTES, _M_MMAP_MAX: _MAPS})
    if library := _glibc():
        library.malloc_trim(0)
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def return_gpu_memory(device: str) -> None:
    """Give back what this process keeps of a GPU's memory without using it, where that is much.

    PyTorch keeps what its largest work took, which no other process could use for a training meanwhile.
    """
    if device.startswith("cuda") and _unused_on_gpu(device) > _KEPT_ON_GPU_BYTES:
        import torch

        torch.cuda.empty_cache()


def _unused_on_gpu(device: str) -> int:
    """Bytes that this process keeps for tensors to come."""
    import torch

    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


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
