"""Chooses the fused kernels that do a strategy's whole step.

A strategy's own `step` is some fifty operations on the vocabulary and a sort: as torch operations on a GPU
that is 100 µs and more. Where the chain is penalties, temperature and filters that declare their `Edge`, the
kernels of `triton.choose` do the same in a handful: the same states, random numbers, tokens and final
distribution, up to candidates that only rounding tells apart. Contrastive decoding, beam search and
speculative decoding have their own (`triton.contrast`, `triton.beam`, `triton.speculate`). `Decoder.step` is
the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from edge_tui.decoders.base import Decoder, Output, Params, Step
from edge_tui.decoders.beam import Beam
from edge_tui.decoders.contrastive import Contrastive
from edge_tui.decoders.speculative import Speculative
from edge_tui.engine.ops.choose_plan import plan

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.base import State
    from edge_tui.decoders.core.random import Rng


class FusedStep(Protocol):
    """Runs a strategy's step as kernels. The tensors that it returns are the same each time."""

    raw: Tensor
    """float32 `[R, V]`, a copy of the main stream's logits that the last step read."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `Decoder.step`; `chosen` and `parent` are there at once, the rest of it after `finish`."""

    def finish(self) -> None:
        """Completes the last step with what the next forward does not wait for."""


def fused_step(decoder: Decoder, width: int, chosen: Tensor, parent: Tensor) -> FusedStep | None:
    """Makes the strategy's step as fused kernels, to be called in place of `decoder.step`.

    It may be captured in a CUDA graph: it never waits, its buffers stay where they are, and parameters, the
    step's number and counts are read on the device.

    Args:
        decoder: The strategy.
        width: Vocabulary `V`; logits may be wider.
        chosen: int64 `[R]`, where logits, state and parameters are; takes the tokens, and is the step's
            `chosen`.
        parent: int64 `[R]`; the same for rows that move.

    Returns:
        None where the strategy or the device has none; `decoder.step` itself does it there.
    """
    from edge_tui.engine.ops.triton.availability import available

    how, kind, device, rows = plan(decoder), type(decoder), str(chosen.device), len(chosen)
    known = how is not None or kind in (Beam, Contrastive)
    if not known or not device.startswith("cuda") or available() is not None:
        return None
    if kind is Beam and rows == 1:
        return None  # one beam penalises logits, as greedy does; the kernels penalise log-probabilities
    # A kernel repeats one class's step, which a subclass may change: so exact classes, not what they declare.
    if kind is Beam:
        from edge_tui.engine.ops.triton.beam import FusedBeam

        return FusedBeam(device, width, rows, chosen=chosen, parent=parent)
    if how is None:
        from edge_tui.engine.ops.triton.contrast import FusedContrast

        return FusedContrast(device, width, rows, chosen=chosen)
    from edge_tui.engine.ops.triton.choose import FusedChoice

    return FusedChoice(how, device, width, rows, chosen=chosen)


class Proposing(Protocol):
    """Proposes tokens and checks them, as `edge_tui.decoders.base.Decoder` does."""

    def propose(self, out: Output, s: State, p: Params, rng: Rng, at: int, /) -> Tensor: ...

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng, /) -> Step: ...


def fused_speculation(
    decoder: Decoder, device: str, width: int, rows: int, num_draft_tokens: int
) -> Proposing | None:
    """Makes the kernels of a strategy that proposes tokens, as `fused_step` does for others."""
    from edge_tui.engine.ops.triton.availability import available

    own = ("init", "propose", "step")
    if not isinstance(decoder, Speculative) or any(
        getattr(type(decoder), name) is not getattr(Speculative, name) for name in own
    ):
        return None
    if not device.startswith("cuda") or available() is not None:
        return None
    from edge_tui.engine.ops.triton.speculate import FusedSpeculative

    return FusedSpeculative(device, width, rows, num_draft_tokens)
