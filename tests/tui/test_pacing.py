from __future__ import annotations

import os
from queue import Queue
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest

from edge_tui.tui.pacing import Pacer


class Writer:
    """A writer thread's queue before a real descriptor."""

    def __init__(self, fd: int) -> None:
        self._queue: Queue[str] = Queue()
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.fixture
def pipe() -> Any:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def pacer_of(writer: object) -> Pacer:
    app: Any = SimpleNamespace(_driver=SimpleNamespace(_writer_thread=writer))
    return Pacer(app)


def fill(fd: int) -> int:
    """Writes until nothing more is taken; returns how much it was."""
    written = 0
    try:
        while True:
            written += os.write(fd, b"x" * 4096)
    except BlockingIOError:
        return written


def flushes(pacer: Pacer, seconds: float) -> int:
    end, count = monotonic() + seconds, 0
    while monotonic() < end:
        count += pacer.ready()
        sleep(Pacer.TICK / 3)
    return count


def test_a_free_terminal_is_flushed_at_full_pace(pipe: tuple[int, int]) -> None:
    pacer = pacer_of(Writer(pipe[1]))
    assert pacer.ready()
    assert not pacer.ready()
    assert flushes(pacer, 0.5) >= 8


def test_a_full_terminal_is_never_flushed(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    pacer = pacer_of(Writer(writing))
    written = fill(writing)
    assert pacer.busy()
    assert flushes(pacer, 0.3) == 0
    assert pacer.interval == Pacer.SLOWEST
    while written:
        written -= len(os.read(reading, written))
    assert flushes(pacer, 0.5) in (1, 2, 3), "slow at first once it drains"


def test_queued_output_counts_as_full(pipe: tuple[int, int]) -> None:
    writer = Writer(pipe[1])
    pacer = pacer_of(writer)
    writer._queue.put("frame")
    assert not pacer.ready()
    writer._queue.get()
    assert not pacer.busy()


def test_without_a_writer_nothing_waits() -> None:
    assert pacer_of(None).ready()


def test_costly_flushes_slow_the_pace(pipe: tuple[int, int]) -> None:
    pacer = pacer_of(Writer(pipe[1]))
    pacer.ready()
    begun, count = monotonic(), 0
    while monotonic() - begun < 0.8:
        if pacer.ready():
            count += 1
            busy_until = monotonic() + 0.02
            while monotonic() < busy_until:
                pass
        sleep(0.005)
    assert count <= 0.8 / Pacer.COSTLY + 3
