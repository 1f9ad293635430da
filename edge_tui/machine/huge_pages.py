"""Moves large memory of this process to huge pages, which most Linux systems leave to programs.

A step on a CPU reads all weights once. In pages of 4 kB the processor looks an address up every few hundred
nanoseconds, and what it fetches ahead ends where a page does; in a virtual machine each look-up is two. In
pages of 2 MB products wait for memory alone. Weights lie where torch and FBGEMM put them, partly in the heap
and partly at addresses that nobody tells, so all memory of some size is moved once they are there.

Gain: a step of Qwen2-0.5B takes 10 to 20 % less of one thread's time in Q4_0, and 26 % in F16
(`python -m tests.engine.models.speed_huge_pages`). Moving costs 1 ms for 2 MB, in a virtual machine 5
where its host has to find the memory first. It needs Linux 6.1.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_PROCESS = Path("/proc/self")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\])?$", re.MULTILINE)
"""Private memory without a file, in Linux' list."""
_LARGE = 8_000_000
"""Bytes of a mapping from which on it is looked at."""
_RESIDENT = 0.75
"""Share of a huge page that must be in memory: the rest comes to be."""
_COLLAPSE = 25
"""Linux' MADV_COLLAPSE."""
_IS_PRESENT = bytes(number >> 7 for number in range(256))
"""Maps the last byte of a page's entry to 1 if the page is in memory."""


def move_to_huge_pages(spared: range = range(0), settings: Path = SETTINGS) -> int:
    """Moves what lies in large private mappings.

    Args:
        spared: Addresses of what is seldom read and stays where it is.
        settings: The folder of the system's settings.

    Returns:
        The bytes that lie on huge pages now; 0 where the system has none, or its settings forbid them.
    """
    with suppress(OSError, ValueError, AttributeError):
        if "[never]" not in (settings / "enabled").read_text():
            size = int((settings / "hpage_pmd_size").read_text())
            return sum(_collapse(start, end) for start, end in _ranges(size, spared))
    return 0


def _ranges(size: int, spared: range) -> Iterator[tuple[int, int]]:
    """Finds what fills whole huge pages: first address and end."""
    maps = (_PROCESS / "maps").read_text()
    with (_PROCESS / "pagemap").open("rb") as pagemap:
        for found in _MAPPING.finditer(maps):
            start, end = (int(word, 16) for word in found.groups())
            if end - start < _LARGE:
                continue
            start, end = start + -start % size, end - end % size
            pages = size // mmap.PAGESIZE
            pagemap.seek(start // mmap.PAGESIZE * 8)
            present = pagemap.read((end - start) // mmap.PAGESIZE * 8)[7::8].translate(_IS_PRESENT)
            first = start
            for at in range(start, end + size, size):
                page = (at - start) // size * pages
                filled = present.count(1, page, page + pages) >= _RESIDENT * pages
                if at < end and filled and at not in spared:
                    continue
                if first < at:
                    yield first, at
                first = at + size


def _collapse(start: int, end: int) -> int:
    """Moves a range that begins and ends with huge pages; returns its bytes, 0 if the kernel refused."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    refused: int = madvise(start, end - start, _COLLAPSE)
    return 0 if refused else end - start
