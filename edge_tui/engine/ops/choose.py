"""Chooses the fused kernels that do a strategy's whole step.

A strategy's own `step` is some fifty operations on the vocabulary and a sort: as torch operations on a GPU
that is 100 µs and more. For each of our strategies and chains that draws, the kernels of `triton.choose` do
penalties, temperature, filters that declare their `Edge`, and the draw: the same states, random numbers,
tokens and final distribution, up to candidates that only rounding tells apart. Other links stay torch
operations between them, and so does `Decoder.logits` of strategies that add nothing else (guidance, DoLa);
`choose_plan` says which. Contrastive decoding, beam search, contrastive search and speculative
decoding have their own (`triton.contrast`, `triton.beam`, `triton.contrastive_search`, `triton.speculate`).
`Decoder.step` is the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.beam import Beam
from edge_tui.decoders.contrastive import Contrastive
from edge_tui.decoders.contrastive_search import ContrastiveSearch
from edge_tui.decoders.speculative import Speculative
from edge_tui.engine.ops.choose_plan import plan

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.ops.triton.choose_parts import FusedStep
    from edge_tui.engine.ops.triton.speculate import FusedSpeculative


def fused_step(
    decoder: Decoder, width: int, chosen: Tensor, parent: Tensor, left_out: Collection[int] = ()
) -> FusedStep | None:
    """Makes the strategy's step as fused kernels, to be called in place of `decoder.step`.

    It may be captured in a CUDA graph: it never waits, its buffers stay where they are, and parameters, the
    step's number and counts are read on the device.

    Args:
        decoder: The strategy.
        width: Vocabulary `V`; logits may be wider.
        chosen: int64 `[R]`, where logits, state and parameters are; takes the tokens, and is the step's
            `chosen`.
        parent: int64 `[R]`; the same for rows that move.
        left_out: Numbers of the links that are at their neutral values.

    Returns:
        None where the strategy or the device has none; `decoder.step` itself does it there.
    """
    from edge_tui.engine.ops.triton.availability import takes

    how, kind = plan(decoder, left_out), type(decoder)
    if how is None and not has_own_kernels(decoder):
        return None
    if not takes(chosen):
        return None
    if how is not None:
        from edge_tui.engine.ops.triton.choose import FusedChoice

        return FusedChoice(how, decoder, width, chosen)
    if kind is Contrastive:
        from edge_tui.engine.ops.triton.contrast import FusedContrast

        return FusedContrast(width, chosen)
    if kind is ContrastiveSearch:
        from edge_tui.engine.ops.triton.contrastive_search import FusedContrastiveSearch

        return FusedContrastiveSearch(width, chosen, parent)
    if len(chosen) == 1:
        return None  # one beam penalises logits, as greedy does; the kernels penalise log-probabilities
    from edge_tui.engine.ops.triton.beam import FusedBeam

    return FusedBeam(width, chosen, parent)


def has_own_kernels(decoder: Decoder) -> bool:
    """Tells whether there are kernels for the step of one strategy alone."""
    # They repeat one class's step, which a subclass may change: so exact classes, not what they declare.
    return type(decoder) in (Beam, Contrastive, ContrastiveSearch) and not decoder.links_around


def fused_speculation(
    decoder: Decoder, width: int, chosen: Tensor, num_draft_tokens: int
) -> FusedSpeculative | None:
    """Makes the kernels of a strategy that proposes tokens, as `fused_step` does for others."""
    from edge_tui.engine.ops.triton.availability import takes

    own = ("init", "propose", "step")
    if (
        not isinstance(decoder, Speculative)
        or decoder.links_around
        or any(getattr(type(decoder), name) is not getattr(Speculative, name) for name in own)
    ):
        return None
    if not takes(chosen):
        return None
    from edge_tui.engine.ops.triton.speculate import FusedSpeculative

    return FusedSpeculative(width, chosen, num_draft_tokens)
