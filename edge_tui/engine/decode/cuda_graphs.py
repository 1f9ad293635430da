"""A step as one CUDA graph: the choice, and its record beside the models' next forward.

Replaying a graph costs the host a few microseconds instead of a hundred launches, so it can stay many steps
ahead of the device and need not be quick about it. Inside, only what the next token depends on stands in
line: logits, choice, forward. What the host is told, and parameters on their way from it, run beside the
forward. (Of a strategy that proposes, forwards and choice stay two graphs, because before each forward the
host may say whether to propose. One step of it is many tokens.)
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from edge_tui.engine.ops.cuda_capture import beside, capture, fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from edge_tui.engine.decode.step_runner import Rig


class Graphs:
    """The captured pieces of a rig: its forwards, its choice, and a choice with the forwards after it.

    A run begins with a choice alone, on the prompt's logits, whose record is there at once. It ends with one
    too, since after the last token there is nothing to be read.

    Args:
        rig: Has run its pieces before, in their true shapes.

    Raises:
        RuntimeError: something in a piece cannot be captured; the rig is as it was.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        before = dict(rig.outputs), rig.decided, {name: c.bound for name, c in rig.contexts.items()}
        self._step: torch.cuda.CUDAGraph | None = None
        try:
            with self._landings():
                self._feeds = [capture(feed) for feed in rig.feeds()]
            landed = all(out.logits is before[0][name].logits for name, out in rig.outputs.items())
            self._choose = capture(self._choose_alone)
            if rig.reads_at_once and landed:
                self._step = capture(self._choose_and_feed)
        except BaseException:
            rig.outputs, rig.decided = before[:2]
            raise
        finally:
            for name, bound in before[2].items():
                # A capture counts positions on the host, but computes none.
                rig.contexts[name].note(bound - rig.contexts[name].bound)
        if rig.rows == 1 and len(self._feeds) == len(rig.streams):
            for name, graph in zip(rig.streams, self._feeds, strict=True):
                rig.contexts[name].replay = partial(self._append, name, graph, rig.outputs[name].logits)

    def replay(self, alone: bool) -> None:
        """Issues one step.

        Args:
            alone: Whether the choice comes alone: it is the last one, or its record is wanted at once.
        """
        rig = self._rig
        if not rig.has_read:
            self.feed()
        rig.has_read = self._step is not None and not alone
        if self._step is None or alone:
            self._choose.replay()
        else:
            self._count()
            self._step.replay()
        self._expect()

    def feed(self) -> None:
        """Forwards alone."""
        self._count()
        for graph in self._feeds:
            graph.replay()

    def _count(self) -> None:
        for context in self._rig.contexts.values():
            context.reserve(self._rig.appends)
            context.note(self._rig.appends)

    def _append(self, name: str, graph: torch.cuda.CUDAGraph, logits: Tensor, ids: Tensor) -> Tensor:
        """One stream's forward on an id of one's own: the last of a prompt whose others are known."""
        self._rig.tokens.copy_(ids)
        graph.replay()
        self._rig.contexts[name].note(1)
        return logits

    def _choose_alone(self) -> None:
        self._rig.pick()
        self._tell()

    def _tell(self) -> None:
        """What no later piece of the step waits for."""
        rig = self._rig
        rig.tell()
        self._expect = rig.ring.post(*rig.note())
        rig.table.refresh()

    def _choose_and_feed(self) -> None:
        """Forwards of different models go side by side: while one waits, another computes."""
        rig = self._rig
        rig.pick(keep=True)
        chosen = fork()
        apart = len(set(map(id, rig.streams.values()))) == len(rig.streams)
        with self._landings():
            first, *others = rig.feeds()
            first()
            for feed in others:
                with beside(chosen if apart else None):
                    feed()
        with beside(chosen):
            self._tell()

    @contextmanager
    def _landings(self) -> Iterator[None]:
        """Lets each stream's forward put its logits where the last ones lie."""
        rig = self._rig
        for name, output in rig.outputs.items() if rig.reads_at_once else ():
            rig.contexts[name].landing = output.logits
        try:
            yield
        finally:
            for context in rig.contexts.values():
                context.landing = None
