from __future__ import annotations

import os
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from edge_tui.tui.pacing import Pacer


class Writer:
    """A writer thread's queue before a real descriptor."""

    def __init__(self, fd: int) -> None:
        self.queue: Queue[str] = Queue()
        self._queue = self.queue
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


class Clock:
    """Moves by hand: the time, and what this thread has computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.spent = 0.0
        monkeypatch.setattr("edge_tui.tui.pacing.monotonic", lambda: self.now)
        monkeypatch.setattr("edge_tui.tui.pacing.thread_time", lambda: self.spent)

    def flushes(self, pacer: Pacer, seconds: float, cost: float = 0.0) -> int:
        """Counts the flushes of a while, each of which takes its cost."""
        end, count = self.now + seconds, 0
        while self.now < end:
            if pacer.ready():
                count += 1
                self.spent += cost
            self.now += Pacer.TICK
        return count


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


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


def test_a_free_terminal_is_flushed_at_full_pace(pipe: tuple[int, int], clock: Clock) -> None:
    pacer = pacer_of(Writer(pipe[1]))
    assert pacer.ready()
    assert not pacer.ready()
    assert clock.flushes(pacer, 1.0) in (29, 30, 31)


def test_a_full_terminal_is_never_flushed(pipe: tuple[int, int], clock: Clock) -> None:
    reading, writing = pipe
    pacer = pacer_of(Writer(writing))
    written = fill(writing)
    assert pacer.busy()
    assert clock.flushes(pacer, 1.0) == 0
    assert pacer.interval == Pacer.SLOWEST
    while written:
        written -= len(os.read(reading, written))
    assert clock.flushes(pacer, 0.5) in (2, 3, 4), "slow at first once it drains"


def test_queued_output_counts_as_full(pipe: tuple[int, int]) -> None:
    writer = Writer(pipe[1])
    pacer = pacer_of(writer)
    writer.queue.put("frame")
    assert not pacer.ready()
    writer.queue.get()
    assert not pacer.busy()


def test_without_a_writer_nothing_waits() -> None:
    assert pacer_of(None).ready()


def test_costly_flushes_slow_the_pace(pipe: tuple[int, int], clock: Clock) -> None:
    pacer = pacer_of(Writer(pipe[1]))
    clock.flushes(pacer, 1.0, cost=0.02)
    assert clock.flushes(pacer, 1.0, cost=0.02) in (6, 7, 8)
