"""Captures a step as one CUDA graph: the choice, and its record beside the models' next forward.

Replaying a graph costs the host a few microseconds instead of a hundred launches, so it can stay many steps
ahead of the device and need not be quick about it. Inside, only what the next token depends on stands in
line: logits, choice, forward. Records on their way to the host, and parameters on theirs from it, run beside
the forward. (Of a strategy that proposes, forwards and choice stay two graphs, because the host may end
proposing before each forward. One step of it is many tokens. A model on another device has graphs of its own,
see `away_forward`.)
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from edge_tui.engine.models.base import CapturableContext
from edge_tui.engine.ops.cuda_capture import beside, capture, fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor

    from edge_tui.engine.decode.step_runner import StepRunner


class Graphs:
    """Holds the graphs of a runner: its forwards, its choice, and a choice with the forwards after it.

    A run begins with a choice alone, on the prompt's logits, whose record is there at once. It ends with one
    too, since no token follows the last one.

    Args:
        runner: Has run its pieces before, in their true shapes.

    Attributes:
        outputs: Each stream's logits that the choice reads.

    Raises:
        RuntimeError: something in a piece cannot be captured; the runner is as it was.
    """

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner
        contexts = [group.context for group in runner.groups if not group.is_away]
        self._contexts = [context for context in contexts if isinstance(context, CapturableContext)]
        if len(self._contexts) < len(contexts):
            raise RuntimeError("a context moves its tensors")
        outputs = dict(runner.outputs)
        bounds = [context.bound for context in self._contexts]
        self._step: torch.cuda.CUDAGraph | None = None
        pieces = runner.forwards()
        try:
            for group in runner.groups:
                group.capture_away(runner.spans)
            with self._logits_out():
                self._forwards = [capture(each.run).replay if each.captured else each.run for each in pieces]
            in_place = all(
                out.logits.data_ptr() == outputs[name].logits.data_ptr()
                for name, out in runner.outputs.items()
            )
            self._choose = capture(self._choose_alone)
            if runner.is_one_graph and in_place:
                self._step = capture(self._choose_and_forward)
        except BaseException:
            runner.outputs = outputs
            raise
        finally:
            for context, bound in zip(self._contexts, bounds, strict=True):
                # A capture counts positions on the host, but computes none.
                context.count_on_host(bound - context.bound)
        self.outputs = dict(runner.outputs)
        if runner.rows > 1:
            return
        for piece, replay in zip(pieces, self._forwards, strict=True):
            own = piece.group
            if own is None:
                continue
            read = own.context
            assert isinstance(read, CapturableContext)
            read.replay = partial(_append, ref(read), runner.tokens, replay, own.logits(runner.outputs))

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
        for forward in self._forwards:
            forward()

    def _reserve_positions(self) -> None:
        rewinds = self._runner.num_draft_tokens > 0  # proposals that are not accepted
        for context in self._contexts:
            context.reserve(self._runner.tokens_per_step)
            context.count_on_host(self._runner.tokens_per_step, rewinds)

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
        side_by_side = len(set(map(id, runner.models))) == len(runner.models)
        with self._logits_out():
            first, *others = runner.forwards()
            first.run()
            for forward in others:
                with beside(chosen if side_by_side else None):
                    forward.run()
        with beside(chosen):
            self._build_record()

    @contextmanager
    def _logits_out(self) -> Iterator[None]:
        """Makes each forward write its logits where the last ones lie."""
        runner = self._runner
        if runner.is_one_graph:
            for group, context in zip(runner.groups, self._contexts, strict=True):  # all are here
                context.logits_out = group.logits(runner.outputs)
        try:
            yield
        finally:
            for context in self._contexts:
                context.logits_out = None


def _append(
    own: ref[CapturableContext], tokens: Tensor, replay: Callable[[], None], logits: Tensor, ids: Tensor
) -> Tensor:
    """Replays one group's forward on a given id: the last of prompts whose others are cached.

    The group's context holds this, which holds neither the context nor the runner that knows it: in a circle
    they would outlive their run by a collection.
    """
    context = own()
    assert context is not None, "it appends the id to itself"
    tokens.copy_(ids)
    replay()
    context.count_on_host(1)
    return logits
