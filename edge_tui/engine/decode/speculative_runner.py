"""Runs the steps of strategies that propose tokens and check them with the main model.

A step feeds the draft k times, one proposal after the other, then the main model once with the token chosen
last and all k proposals, and lets the strategy say how many it takes. The others are rewound on the
device, by setting lengths. Where a strategy has no draft model, nothing is fed for the proposals.

The draft is always fed the last *two* certain tokens first. If everything was accepted it has not read the
last but one yet, else it reads it twice; either way the shapes are the same, as a captured graph wants.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Output, names_of
from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.core.step_checks import check_proposal
from edge_tui.decoders.core.step_log import logged
from edge_tui.engine.decode.inspection import StrategyInspector
from edge_tui.engine.decode.step_pieces import Piece
from edge_tui.engine.decode.step_record import Sampled, clamp_ids, margin_of
from edge_tui.engine.decode.step_runner import StepRunner
from edge_tui.engine.ops.choose import fused_speculation
from edge_tui.engine.ops.removal import removals_of
from edge_tui.engine.ops.stats import OUT_OF_RANGE, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Env, Step


class SpeculativeRunner(StepRunner):
    """Runs steps of one row whose record has `K` rows, one for each position. Arguments: as `StepRunner`."""

    leaves_out = False

    def _setup(self, values: Mapping[str, float]) -> None:
        """Allocates the block of proposals, and finds the kernels of the strategy."""
        import torch

        decoder, rows, width = self.decoder, self.rows, self._width
        self.is_one_graph = False  # the host may end proposing before each forward
        self.num_draft_tokens = decoder.num_draft_tokens(values)
        main, *drafts = self.groups
        self._main_group, self._main = main, decoder.streams[0].name
        self._draft = drafts[0] if drafts else None
        """The stream of the draft model; None where there is none."""
        self._kernels = fused_speculation(decoder, width, self.buffers.tokens, self.num_draft_tokens)
        self._inspector = StrategyInspector(decoder, proposes=True)
        self._is_own = self._kernels is not None or is_own(type(decoder))
        self._out_of_range = torch.zeros(self.num_draft_tokens + 1, dtype=torch.int64, device=self.device)
        """1 where a proposal or a token of a step was an id out of range."""
        self._certain = torch.zeros(rows, dtype=torch.int64, device=self.device)
        """Positions of the main context that will stay."""
        self._block = torch.zeros(rows, self.num_draft_tokens + 1, dtype=torch.int64, device=self.device)
        """The token chosen last and the proposals after it."""
        self._pair = torch.zeros(rows, 2, dtype=torch.int64, device=self.device)
        """The last two tokens."""
        self._rng = Rng(self.buffers.key, self.buffers.step)
        self._traceable = False
        self._positions = torch.arange(self.num_draft_tokens + 1, device=self.device)

    def begin(self, env: Env, outputs: Mapping[str, Output], seed: int) -> None:
        """Does `StepRunner.begin`; a run begins with proposals."""
        self.proposing = True
        super().begin(env, outputs, seed)
        self._out_of_range.zero_()
        self._certain.fill_(env.prompt.shape[1])
        self._pair[:, 1] = env.prompt[:, -1]

    def forwards(self) -> list[Piece]:
        """Lists the one piece, or the two that differ in device: proposing, and reading what was proposed."""
        if self.proposing and self._draft is not None and self._draft.is_away:
            return [Piece(self._propose_all, captured=False), Piece(partial(self._read_main, self._block))]
        return [Piece(self.forward)]

    def forward(self) -> None:
        """Lets the draft propose and the main model read all; without proposals the last token alone."""
        if self.proposing:
            self._propose_all()
            self._read_main(self._block)
            return
        if not self._is_own:
            self._out_of_range.zero_()
        self._read_main(self._pair[:, 1:].contiguous())

    def _propose_all(self) -> None:
        """Fills the block: the token chosen last, and proposals after it."""
        if not self._is_own:
            self._out_of_range.zero_()
        self._block[:, 0] = self._pair[:, 1]
        if self._draft:
            self._draft.truncate(self._certain - 1)
        tokens = self._pair
        for at in range(self.num_draft_tokens):
            proposed = self._propose(self._read_draft(tokens), at)
            self._block[:, at + 1] = proposed
            tokens = proposed[:, None]

    def _read_main(self, tokens: Tensor) -> None:
        """Computes the main model's logits after these tokens."""
        self.outputs[self._main] = self._main_group.model.forward(self._main_group.context, tokens)

    def _read_draft(self, tokens: Tensor) -> Output | None:
        """Computes the draft model's logits after these tokens; None where there is no such model."""
        if self._draft is None:
            return None
        if not self._draft.is_away:
            return self._cut(self._draft.forward(tokens, None))
        self._draft.start(tokens, None, self.spans)
        return self._cut(self._draft.fetch())

    def _propose(self, out: Output | None, at: int) -> Tensor:
        """Proposes the token at a position; an id out of range is brought into it and marked."""
        strategy = self._kernels or self.decoder
        proposed = strategy.propose(out, self._state, self.table.params, self._rng, at)
        if self._is_own:
            return proposed
        check_proposal(self.decoder, proposed, self.rows, self.device)
        proposed, wrong = clamp_ids(proposed, self._width)
        self._out_of_range[:1] |= wrong
        return proposed

    def costs(self) -> tuple[float, float]:
        """Measures the seconds of a step's forwards without proposals and with them; both are taken back."""
        seconds = []
        for self.proposing in (False, True):
            seconds.append(self._time())
        return seconds[0], seconds[1]

    def _time(self, count: int = 3) -> float:
        """Measures the mean of `count` steps after one that warms up."""
        forward = self.graphs.forward if self.graphs is not None else self.forward
        began = 0.0
        for i in range(count + 1):
            forward()
            self._main_group.context.truncate(self._certain)
            if i == 0:
                self._wait()
                began = time.perf_counter()
        self._wait()
        return (time.perf_counter() - began) / count

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)

    def sample(self, keep_logits: bool = False) -> None:
        """Lets the strategy accept proposals, and takes the others back."""
        outs = {self._main: self._cut(self.outputs[self._main])}
        choose = self._kernels.step if self._kernels else self._inspector.step
        with logged() as log:
            step = choose(outs, self._state, self.table.params, self._rng)
        if not self._is_own:
            step = self._in_range(step)
        raw = outs[self._main].logits[0]
        step = replace(step, margin=margin_of(self.decoder, step, log))
        self._sampled = Sampled(step, raw, removals_of(log, 1, len(raw)))
        self._accept(step.chosen, *_accepted(step))

    def _in_range(self, step: Step) -> Step:
        """Brings the ids of a user's step into range; `_out_of_range` marks positions where they were not."""
        accepted, tokens = _accepted(step)
        positions = tokens.shape[1]
        accepted, wrong_count = clamp_ids(accepted, positions)
        tokens, wrong_tokens = clamp_ids(tokens, step.final.shape[-1])
        chosen, wrong_choice = clamp_ids(step.chosen, step.final.shape[-1])
        counts = self._positions[:positions] <= accepted[:, None]
        wrong = (wrong_tokens[0] + wrong_count + wrong_choice) * counts[0]
        self._out_of_range[:positions] |= wrong.clamp(max=1)
        return replace(step, chosen=chosen, tokens=tokens, accepted=accepted)

    def build_record(self) -> tuple[Tensor, Tensor]:
        """Computes the record of the step's positions; those that do not count have the parent −1."""
        assert self._sampled is not None, "nothing was sampled yet"
        step, z = self._sampled.step, self._sampled.raw
        accepted, tokens = _accepted(step)
        positions = self._positions[: len(z)]
        done = (tokens[0, :, None] == self.buffers.eos).any(-1) if self.buffers.eos.numel() else positions < 0
        return record(
            z,
            final=step.final[0],
            chosen=tokens[0],
            parent=(positions <= accepted).long() - 1,
            done=done if self._is_own else done + OUT_OF_RANGE * self._out_of_range[: len(z)],
            version=self.table.version_row.expand(len(z)),
            extras=[step.extras[name][0].float() for name in names_of(self.decoder.columns)]
            + [value.expand(len(z)) for value in self.decoder.stage_columns(self._state)],
            margin=None if step.margin is None else step.margin[0],
            removals=self._sampled.removals,
        )

    def _cut(self, output: Output) -> Output:
        """Does `StepRunner._cut`; fused kernels read every precision, so nothing is converted for them."""
        if self._kernels is None:
            return super()._cut(output)
        return replace(output, logits=output.logits[..., : self._width])

    def _accept(self, chosen: Tensor, accepted: Tensor, tokens: Tensor) -> None:
        """Keeps the accepted tokens in both contexts, and makes the chosen one the last."""
        import torch

        before = torch.cat((self._pair[:, 1:], tokens), 1)  # `accepted` is the index of the last but one
        self._pair.copy_(torch.cat((before.gather(1, accepted[:, None]), chosen[:, None]), 1))
        # Before the first forward the prompt is all there is; afterwards each step leaves what it has taken.
        main = self._main_group.context
        self._certain.copy_(torch.minimum(main.length, self._certain + 1 + accepted))
        main.truncate(self._certain)
        self.buffers.step.add_(accepted + 1)


def _accepted(step: Step) -> tuple[Tensor, Tensor]:
    """Returns how many proposals a step takes, and the tokens of its positions; a checked step has both."""
    assert step.accepted is not None
    assert step.tokens is not None
    return step.accepted, step.tokens
