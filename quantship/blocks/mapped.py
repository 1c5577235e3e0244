"""Weights that lie in a mapped file: pages that are done with are given back.

A model loaded in the dtype of its file is not copied: its tensors are the file's pages, which count
as the process's memory from the first look at them on. They can be given back at any time, since
nobody writes to them.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

MAPS = Path("/proc/self/maps")
SUFFIX = ".safetensors"


def release(tensors: Iterable[Tensor]) -> None:
    """Give the pages of tensors back that map a safetensors file; does nothing but on Linux.

    The tensors stay as they are: what is looked at again is read again.

    Args:
        tensors: None of them was ever written to.
    """
    if not sys.platform.startswith("linux"):
        return
    ranges = _file_ranges()
    for tensor in tensors:
        if tensor.device.type != "cpu" or tensor.numel() == 0:
            continue
        first = tensor.data_ptr()
        last = first + tensor.numel() * tensor.element_size()
        for start, end in ranges:
            _give_back(max(start, first), min(end, last))


def give_back_heap() -> None:
    """Return what was freed to the system, where the C library can; small blocks stay otherwise."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _file_ranges() -> list[tuple[int, int]]:
    """Addresses where safetensors files are mapped."""
    found = []
    for line in MAPS.read_text(errors="replace").splitlines():
        if line.endswith(SUFFIX):
            start, end = line.split(maxsplit=1)[0].split("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def _give_back(start: int, end: int) -> None:
    """The whole pages between two addresses."""
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    size = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    if size > 0:
        address, length = ctypes.c_void_p(first), ctypes.c_size_t(size)
        ctypes.CDLL(None).madvise(address, length, mmap.MADV_DONTNEED)
