"""Tests that large memory is moved to huge pages, and only what is in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_tui.machine.huge_pages import SETTINGS, move_to_huge_pages

SCRIPT = """
import ctypes, mmap, sys
from pathlib import Path
from edge_tui.machine.huge_pages import move_to_huge_pages

HUGE, SIZE = 1 << 21, 1 << 24
KINDS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

def memory(step):
    # With room around it, so that Linux makes one mapping of no two.
    whole = mmap.mmap(-1, SIZE + 2 * HUGE, flags=KINDS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    first = -start % HUGE
    for at in range(first, first + SIZE, step):
        whole[at] = 7
    return whole, first, start + first

def huge_pages(start):
    sizes, inside = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word = line.split()[0]
        if "-" in word:
            low, high = (int(number, 16) for number in word.split("-"))
            inside = low <= start < high
        elif inside and word == "AnonHugePages:":
            return int(line.split()[1]) * 1024

full, first, start = memory(4096)
guard = mmap.mmap(-1, HUGE, prot=mmap.PROT_READ, flags=KINDS)
sparse, _, sparse_start = memory(2 * 4096)
guard_too = mmap.mmap(-1, HUGE, prot=mmap.PROT_READ, flags=KINDS)
spared, _, spared_start = memory(4096)
moved = move_to_huge_pages(range(spared_start, spared_start + SIZE))
assert set(full[first : first + SIZE : 4096]) == {7}
print(moved >= SIZE, huge_pages(start) >= SIZE, huge_pages(sparse_start), huge_pages(spared_start))
"""


@pytest.mark.skipif(not SETTINGS.exists(), reason="a system without them")
def test_only_full_memory_that_is_not_spared_is_moved() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    if run.stdout.startswith("False"):
        pytest.skip("this kernel moves nothing on request")
    assert run.stdout.split() == ["True", "True", "0", "0"]


def test_nothing_is_moved_where_settings_forbid_it(tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    assert move_to_huge_pages(settings=tmp_path) == 0


def test_nothing_is_moved_where_there_are_none(tmp_path: Path) -> None:
    assert move_to_huge_pages(settings=tmp_path) == 0
