"""Captures work as CUDA graphs, with branches inside one."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_cuda: Any = torch.cuda
"""Streams and events, whose constructors carry no types."""


class _Streams:
    """Hands out the streams of a capture, in every capture the same ones.

    Libraries keep a workspace for each stream that they have ever seen, of 33 MB on an H200.
    """

    def __init__(self) -> None:
        self._of: dict[int, list[Any]] = {}
        self._taken = 0

    def first(self) -> Any:
        """Begins a capture on the current device, and returns its stream."""
        self._taken = 0
        return self.next()

    def next(self) -> Any:
        """Returns a stream that no other branch of the capture has."""
        streams = self._of.setdefault(torch.cuda.current_device(), [])
        if self._taken == len(streams):
            streams.append(_cuda.Stream())
        self._taken += 1
        return streams[self._taken - 1]


class _Used(threading.local):
    """Holds the streams that this thread captures on."""

    def __init__(self) -> None:
        self.streams = _Streams()


_idle: list[_Streams] = []
"""Those that no thread captures on; engines in turn, each with a thread of its own, use the same."""
_used = _Used()


def capture(piece: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Captures a piece of work as a graph.

    Other threads may use the device meanwhile, as telemetry does. `torch.cuda.graph` would run a garbage
    collection and give cached memory back first, which takes longer than the capture.

    Raises:
        RuntimeError: something in it cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    _used.streams = _idle.pop() if _idle else _Streams()
    try:
        _capture(graph, piece)
    finally:
        _idle.append(_used.streams)
    return graph


def _capture(graph: torch.cuda.CUDAGraph, piece: Callable[[], None]) -> None:
    main, aside = torch.cuda.current_stream(), _used.streams.first()
    aside.wait_stream(main)
    with torch.cuda.stream(aside):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            piece()
            graph.capture_end()
        except BaseException:
            with suppress(RuntimeError):  # what it says is that a piece is missing
                graph.capture_end()
            _free_generator()
            raise
    main.wait_stream(aside)


def _free_generator() -> None:
    """Gives torch's own generator a new state after a failed capture: it would take itself for captured."""
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    with suppress(RuntimeError):
        generator.graphsafe_set_state(generator.clone_state())


def fork() -> Any:
    """Records where a branch may begin: behind all captured so far. None if nothing is being captured."""
    # Asking would make a context of the device where there is none.
    capturing = _cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    return torch.cuda.current_stream().record_event() if capturing else None


@contextmanager
def beside(start: Any) -> Iterator[None]:
    """Captures what is done inside as a branch of the graph, which what comes after waits for.

    A graph's first path through a fork goes on at once, others some microseconds later: what is waited for
    should be captured before its branches.

    Memory that the branch reads must stay referenced until its end. Work captured since `start` runs
    beside it, and could be given what is given back.

    Args:
        start: From `fork`; None to do the work in line.
    """
    if start is None:
        yield
        return
    main, side = torch.cuda.current_stream(), _used.streams.next()
    side.wait_event(start)
    with torch.cuda.stream(side):
        yield
    main.wait_stream(side)
