"""Freed memory: kept for the next tensor, or given back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from msklabel.memory import much_memory_left, return_freed_memory, return_gpu_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_LARGE_PAGES = _THP.read_text(encoding="utf-8") if _THP.exists() else ""
_FAULTS = """
import resource, torch
from msklabel.memory import keep_freed_memory, return_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(1 << 24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory(large=True)
faults()
kept = faults()
return_freed_memory()
print(kept, faults())
"""
_RESIDENT = """
import psutil, torch
from msklabel.memory import return_freed_memory

tensors = [torch.ones(1 << 16) for _ in range(800)]  # 200 MiB in small pieces
last = torch.ones(1 << 16)  # lies behind them, so that the heap cannot simply be cut off
full = psutil.Process().memory_info().rss
del tensors
return_freed_memory()
print(full - psutil.Process().memory_info().rss)
"""


def printed(code: str, large_pages: bool = False) -> list[int]:
    # Large pages are few, and so are the faults to count.
    env = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    env |= {} if large_pages else {"THP_MEM_ALLOC_ENABLE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=env
    )
    return [int(number) for number in done.stdout.split()]


@pytest.mark.skipif("[always]" in _LARGE_PAGES, reason="large pages are too few to count")
def test_kept_memory_is_not_fetched_from_the_system_again() -> None:
    kept, returned = printed(_FAULTS)
    assert kept < 1000 < 16384 < returned


@pytest.mark.skipif("[madvise]" not in _LARGE_PAGES, reason="the system gives large pages to all or to none")
def test_large_tensors_lie_on_large_pages() -> None:
    assert printed("import msklabel\n" + _FAULTS, large_pages=True)[1] < 16384 < printed(_FAULTS)[1]


def test_what_was_freed_is_given_back() -> None:
    assert printed(_RESIDENT)[0] > 150 * 2**20


@pytest.mark.parametrize(("thirds", "much"), [(2.0, False), (100.0, True)])
def test_much_is_left_while_a_third_is_enough(thirds: float, much: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    pages = int(thirds * psutil.Process().memory_info().rss) // page
    sizes = {"SC_PAGE_SIZE": page, "SC_PHYS_PAGES": pages}
    monkeypatch.setattr(os, "sysconf", lambda name: sizes[str(name)])
    assert much_memory_left() == much


_GIB = 1 << 30


def a_gpu(monkeypatch: pytest.MonkeyPatch, free: int, kept: int, used: int) -> list[str]:
    """A GPU of 80 GiB of which this process keeps and uses some; what it is told to give back goes to the list."""
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * _GIB, 80 * _GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: kept * _GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: used * _GIB)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("empty"))
    return told


@pytest.mark.parametrize(("free", "kept", "used", "much"), [(40, 2, 2, True), (39, 2, 2, False), (30, 11, 1, True)])
def test_half_of_a_gpu_is_much(free: int, kept: int, used: int, much: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1)  # whatever the processor's memory
    a_gpu(monkeypatch, free, kept, used)
    assert much_memory_left("cuda:0") == much


def test_a_gpu_gets_back_what_is_not_used_where_that_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    told = a_gpu(monkeypatch, 60, 3, 2)
    return_gpu_memory("cuda")
    return_gpu_memory("cpu")
    assert not told
    told = a_gpu(monkeypatch, 60, 4, 2)
    return_gpu_memory("cuda")
    assert told == ["empty"]
    return_freed_memory()
    assert told == ["empty"] * 2
