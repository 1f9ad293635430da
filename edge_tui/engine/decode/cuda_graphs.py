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

from edge_tui.engine.models.base import CapturableContext
from edge_tui.engine.ops.cuda_capture import beside, capture, fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from edge_tui.engine.decode.step_runner import StepRunner


class Graphs:
    """The captured pieces of a runner: its forwards, its choice, and a choice with the forwards after it.

    A run begins with a choice alone, on the prompt's logits, whose record is there at once. It ends with one
    too, since after the last token there is nothing to be read.

    Args:
        runner: Has run its pieces before, in their true shapes.

    Raises:
        RuntimeError: something in a piece cannot be captured; the runner is as it was.
    """

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner
        self._contexts = {n: c for n, c in runner.contexts.items() if isinstance(c, CapturableContext)}
        if len(self._contexts) < len(runner.contexts):
            raise RuntimeError("a context moves its tensors")
        before = dict(runner.outputs), runner.decided, {name: c.bound for name, c in self._contexts.items()}
        self._step: torch.cuda.CUDAGraph | None = None
        try:
            with self._logits_out():
                self._forwards = [capture(forward) for forward in runner.forwards()]
            landed = all(out.logits is before[0][name].logits for name, out in runner.outputs.items())
            self._choose = capture(self._choose_alone)
            if runner.reads_at_once and landed:
                self._step = capture(self._choose_and_feed)
        except BaseException:
            runner.outputs, runner.decided = before[:2]
            raise
        finally:
            for name, bound in before[2].items():
                # A capture counts positions on the host, but computes none.
                self._contexts[name].count_on_host(bound - self._contexts[name].bound)
        if runner.rows == 1 and len(self._forwards) == len(runner.streams):
            for name, graph in zip(runner.streams, self._forwards, strict=True):
                self._contexts[name].replay = partial(self._append, name, graph, runner.outputs[name].logits)

    def replay(self, alone: bool) -> None:
        """Issues one step.

        Args:
            alone: Whether the choice comes alone: it is the last one, or its record is wanted at once.
        """
        runner = self._runner
        if not runner.has_read:
            self.forward()
        runner.has_read = self._step is not None and not alone
        if self._step is None or alone:
            self._choose.replay()
        else:
            self._count()
            self._step.replay()
        self._expect()

    def forward(self) -> None:
        """Forwards alone."""
        self._count()
        for graph in self._forwards:
            graph.replay()

    def _count(self) -> None:
        for context in self._contexts.values():
            context.reserve(self._runner.tokens_per_step)
            context.count_on_host(self._runner.tokens_per_step)

    def _append(self, name: str, graph: torch.cuda.CUDAGraph, logits: Tensor, ids: Tensor) -> Tensor:
        """One stream's forward on an id of one's own: the last of a prompt whose others are known."""
        self._runner.tokens.copy_(ids)
        graph.replay()
        self._contexts[name].count_on_host(1)
        return logits

    def _choose_alone(self) -> None:
        self._runner.sample()
        self._build_record()

    def _build_record(self) -> None:
        """What no later piece of the step waits for."""
        runner = self._runner
        runner.build_record()
        self._expect = runner.ring.post(*runner.record())
        runner.table.refresh()

    def _choose_and_feed(self) -> None:
        """Forwards of different models go side by side: while one waits, another computes."""
        runner = self._runner
        runner.sample(keep_logits=True)
        chosen = fork()
        apart = len(set(map(id, runner.streams.values()))) == len(runner.streams)
        with self._logits_out():
            first, *others = runner.forwards()
            first()
            for forward in others:
                with beside(chosen if apart else None):
                    forward()
        with beside(chosen):
            self._build_record()

    @contextmanager
    def _logits_out(self) -> Iterator[None]:
        """Lets each stream's forward put its logits where the last ones lie."""
        runner = self._runner
        for name, output in runner.outputs.items() if runner.reads_at_once else ():
            self._contexts[name].logits_out = output.logits
        try:
            yield
        finally:
            for context in self._contexts.values():
                context.logits_out = None
