"""Captures work as CUDA graphs, with branches inside one."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_cuda: Any = torch.cuda
"""Streams and events, whose constructors carry no types."""


def capture(piece: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Captures a piece of work as a graph.

    Other threads may use the device meanwhile, as telemetry does. `torch.cuda.graph` would run a garbage
    collection and give cached memory back first, which takes longer than the capture.

    Raises:
        RuntimeError: something in it cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    main, aside = torch.cuda.current_stream(), _cuda.Stream()
    aside.wait_stream(main)
    with torch.cuda.stream(aside):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            piece()
        except BaseException:
            with suppress(RuntimeError):  # what it says is that a piece is missing
                graph.capture_end()
            raise
        graph.capture_end()
    main.wait_stream(aside)
    return graph


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
    main, side = torch.cuda.current_stream(), _cuda.Stream()
    side.wait_event(start)
    with torch.cuda.stream(side):
        yield
    main.wait_stream(side)
