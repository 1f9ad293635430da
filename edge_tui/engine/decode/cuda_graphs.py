"""Captures a step as one CUDA graph: the choice, and its record beside the models' next forward.

Replaying a graph costs the host a few microseconds instead of a hundred launches, so it can stay many steps
ahead of the device and need not be quick about it. Inside, only what the next token depends on stands in
line: logits, choice, forward. Records on their way to the host, and parameters on theirs from it, run beside
the forward. (Of a strategy that proposes, forwards and choice stay two graphs, because the host may end
proposing before each forward. One step of it is many tokens.)
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
    """Holds the graphs of a runner: its forwards, its choice, and a choice with the forwards after it.

    A run begins with a choice alone, on the prompt's logits, whose record is there at once. It ends with one
    too, since no token follows the last one.

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
        outputs = dict(runner.outputs)
        bounds = {name: context.bound for name, context in self._contexts.items()}
        self._step: torch.cuda.CUDAGraph | None = None
        try:
            with self._logits_out():
                self._forwards = [capture(forward) for forward in runner.forwards()]
            in_place = all(out.logits is outputs[name].logits for name, out in runner.outputs.items())
            self._choose = capture(self._choose_alone)
            if runner.is_one_graph and in_place:
                self._step = capture(self._choose_and_forward)
        except BaseException:
            runner.outputs = outputs
            raise
        finally:
            for name, bound in bounds.items():
                # A capture counts positions on the host, but computes none.
                self._contexts[name].count_on_host(bound - self._contexts[name].bound)
        if runner.rows == 1 and len(self._forwards) == len(runner.streams):
            for name, graph in zip(runner.streams, self._forwards, strict=True):
                self._contexts[name].replay = partial(
                    self._forward_ids, name, graph, runner.outputs[name].logits
                )

    def replay(self, alone: bool) -> None:
        """Issues one step.

        Args:
            alone: True for the choice without the forward: the last one, or one whose record is due at once.
        """
        runner = self._runner
        if not runner.logits_current:
            self.forward()
        runner.logits_current = self._step is not None and not alone
        if self._step is None or alone:
            self._choose.replay()
        else:
            self._reserve_positions()
            self._step.replay()
        self._on_replay()

    def forward(self) -> None:
        """Issues the forwards alone."""
        self._reserve_positions()
        for graph in self._forwards:
            graph.replay()

    def _reserve_positions(self) -> None:
        for context in self._contexts.values():
            context.reserve(self._runner.tokens_per_step)
            context.count_on_host(self._runner.tokens_per_step)

    def _forward_ids(self, name: str, graph: torch.cuda.CUDAGraph, logits: Tensor, ids: Tensor) -> Tensor:
        """Replays one stream's forward on a given id: the last of a prompt whose others are cached."""
        self._runner.tokens.copy_(ids)
        graph.replay()
        self._contexts[name].count_on_host(1)
        return logits

    def _choose_alone(self) -> None:
        self._runner.sample()
        self._build_record()

    def _build_record(self) -> None:
        """Records the step; no later piece of it waits for this."""
        runner = self._runner
        self._on_replay = runner.ring.post(*runner.build_record())
        runner.table.refresh()

    def _choose_and_forward(self) -> None:
        """Chooses and forwards; different models go side by side: while one waits, another computes."""
        runner = self._runner
        runner.sample(keep_logits=True)
        chosen = fork()
        side_by_side = len(set(map(id, runner.streams.values()))) == len(runner.streams)
        with self._logits_out():
            first, *others = runner.forwards()
            first()
            for forward in others:
                with beside(chosen if side_by_side else None):
                    forward()
        with beside(chosen):
            self._build_record()

    @contextmanager
    def _logits_out(self) -> Iterator[None]:
        """Makes each stream's forward write its logits where the last ones lie."""
        runner = self._runner
        for name, output in runner.outputs.items() if runner.is_one_graph else ():
            self._contexts[name].logits_out = output.logits
        try:
            yield
        finally:
            for context in self._contexts.values():
                context.logits_out = None
