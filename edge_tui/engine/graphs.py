"""A step as three kinds of CUDA graph: forward of each stream, choice, record.

Replaying a graph costs the host a few microseconds instead of a hundred launches, so it can stay many steps
ahead of the device and need not be quick about it. Forwards and choice follow one another; the record runs
on a stream of its own, beside the next forward, since only the host waits for it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.rig import Rig

_cuda: Any = torch.cuda
"""Streams and events, whose constructors carry no types."""


class Graphs:
    """The captured pieces of a rig.

    Args:
        rig: Has run its pieces before, in their true shapes.
        feeds: The pieces of its `feed`; those after the first may run beside it.

    Raises:
        RuntimeError: something in a piece cannot be captured; the rig is as it was.
    """

    def __init__(self, rig: Rig, feeds: list[Callable[[], None]]) -> None:
        self._rig = rig
        before = dict(rig.outputs), rig.decided, {name: c.bound for name, c in rig.contexts.items()}
        self._record: tuple[Any, Any] = (None, None)
        try:
            self._feed = [_capture(feed) for feed in feeds]
            self._choose = _capture(rig.choose)
            self._note = _capture(self._take_note)
        except BaseException:
            rig.outputs, rig.decided = before[:2]
            raise
        finally:
            for name, bound in before[2].items():
                # A capture counts positions on the host, but computes none.
                rig.contexts[name].note(bound - rig.contexts[name].bound)
        self._side: Any = _cuda.Stream(rig.device)
        self._chosen, self._recorded, self._forked = (_cuda.Event() for _ in range(3))
        self._lanes = [_cuda.Stream(rig.device) for _ in feeds[1:]]
        self._joined = [_cuda.Event() for _ in self._lanes]
        models = list(rig.streams.values())
        self._parallel = len(set(map(id, models))) == len(models)

        if rig.rows == 1 and len(feeds) == len(rig.streams):
            for name, graph in zip(rig.streams, self._feed, strict=True):
                rig.contexts[name].replay = partial(self._append, name, graph, rig.outputs[name].logits)

    def _append(self, name: str, graph: torch.cuda.CUDAGraph, logits: Tensor, ids: Tensor) -> Tensor:
        """One stream's forward on an id of one's own: the last of a prompt whose others are known."""
        self._rig.tokens.copy_(ids)
        graph.replay()
        self._rig.contexts[name].note(1)
        return logits

    def _take_note(self) -> None:
        self._record = self._rig.note()

    def replay(self, feed: bool = True) -> None:
        """Issues one step; the first of a run has nothing to feed, its logits are the prompt's."""
        rig = self._rig
        main = torch.cuda.current_stream()
        if feed:
            self.feed()
        main.wait_event(self._recorded)  # the choice overwrites what the last record reads
        self._choose.replay()
        self._chosen.record(main)
        with torch.cuda.stream(self._side):
            self._side.wait_event(self._chosen)
            self._note.replay()
            rig.ring.write(*self._record)
            self._recorded.record(self._side)

    def feed(self) -> None:
        """Forwards alone. Those of different models go side by side: while one waits, another computes."""
        main = torch.cuda.current_stream()
        for context in self._rig.contexts.values():
            context.reserve(self._rig.appends)
            context.note(self._rig.appends)
        if not self._lanes or not self._parallel:
            for graph in self._feed:
                graph.replay()
            return
        self._forked.record(main)
        for lane, graph, joined in zip(self._lanes, self._feed[1:], self._joined, strict=True):
            with torch.cuda.stream(lane):
                lane.wait_event(self._forked)
                graph.replay()
                joined.record(lane)
        self._feed[0].replay()
        for joined in self._joined:
            main.wait_event(joined)


def _capture(piece: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """One piece as a graph.

    Other threads may use the device meanwhile, as telemetry does. `torch.cuda.graph` would run a garbage
    collection and give cached memory back first, which takes longer than the capture.
    """
    graph = torch.cuda.CUDAGraph()
    main, aside = torch.cuda.current_stream(), _cuda.Stream()
    aside.wait_stream(main)
    with torch.cuda.stream(aside):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            piece()
        finally:
            graph.capture_end()
    main.wait_stream(aside)
    return graph
