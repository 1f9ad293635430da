"""Which strategies have their whole step as a few fused kernels, and what those must compute.

A strategy's own `step` is some fifty operations on the vocabulary and a sort: as torch operations on a GPU
that is 100 µs and more. Where the chain is penalties, temperature and filters that declare their `Edge`, the
kernels of `choose_triton` do the same in a handful: the same states, random numbers, tokens and final
distribution, up to candidates that only rounding tells apart. Contrastive decoding, beam search and
speculative decoding have their own (`contrast_triton`, `beam_triton`, `speculate_triton`). `Decoder.step` is
the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge_tui.decoders.auto import DO_SAMPLE, FILTERS, Auto
from edge_tui.decoders.base import Decoder, Edge, Filter, Output, Params, Stage, Step
from edge_tui.decoders.beam import Beam
from edge_tui.decoders.contrastive import Contrastive
from edge_tui.decoders.core.sampling import Sampling
from edge_tui.decoders.greedy import Greedy
from edge_tui.decoders.speculative import Speculative
from edge_tui.decoders.temperature import ORDER

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.base import State
    from edge_tui.decoders.core.random import Rng


class FusedStep(Protocol):
    """A strategy's step as kernels. The tensors that it gives are the same each time."""

    raw: Tensor
    """float32 `[R, V]`, a copy of the main stream's logits that the last step read."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """As `Decoder.step`; `chosen` and `parent` are there at once, the rest of it after `finish`."""

    def finish(self) -> None:
        """What is left of the last step, since the next forward does not wait for it."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One filter of a plan: its edge, and the parameter's value at which everything stays."""

    edge: Edge
    neutral: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A chain after its penalties, as the kernels read it.

    Attributes:
        draws: Whether it samples at all; else it takes the argmax.
        cuts: Filters, first to last. At most one looks at surprise, and it is the last; at most one adds
            nothing up.
        order: Name of the parameter that puts the temperature before (0) or after (1) the filters; None
            puts it before.
        switch: Name of the parameter that turns sampling on; None is always on.
    """

    draws: bool
    cuts: tuple[Cut, ...] = ()
    order: str | None = None
    switch: str | None = None


def plan(decoder: Decoder) -> Plan | None:
    """How the step of a strategy that reads one model is fused; None if it cannot be."""
    kind = type(decoder)
    if kind is Greedy:
        return Plan(draws=False)
    if isinstance(decoder, Sampling) and kind is Sampling:
        cuts = _cuts((decoder.filter,))
        return None if cuts is None else Plan(True, cuts, order=ORDER.name)
    if kind is Auto:
        cuts = _cuts(tuple(cls() for cls in FILTERS))
        return None if cuts is None else Plan(True, cuts, switch=DO_SAMPLE.name)
    return None


def _cuts(filters: tuple[Filter, ...]) -> tuple[Cut, ...] | None:
    """What the filters declare; None where one does not, or where the kernels do not know the combination."""
    cuts = []
    for filter in filters:
        edge = _edge(filter)
        neutral = next((p.neutral for p in filter.params if edge and p.name == edge.param), None)
        if edge is None or neutral is None:
            return None
        cuts.append(Cut(edge, neutral))
    surprises = [cut.edge.key == "surprise" for cut in cuts]
    unknown = (
        any(surprises[:-1])
        or sum(cut.edge.weight is None for cut in cuts) > 1
        or any(cut.edge.key == "surprise" and cut.edge.weight != "mass" for cut in cuts)
    )
    return None if unknown else tuple(cuts)


def _edge(filter: Filter) -> Edge | None:
    """The filter's declaration, unless a subclass took it over from a parent and cuts otherwise."""
    kind = type(filter)
    closest = next(cls for cls in kind.__mro__ if "edge" in vars(cls) or "apply" in vars(cls))
    learns = kind.observe is not Stage.observe
    return filter.edge if "edge" in vars(closest) and not learns else None


def fused_step(decoder: Decoder, width: int, chosen: Tensor, parent: Tensor) -> FusedStep | None:
    """The strategy's step as fused kernels, to be called in place of `decoder.step`.

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
    from edge_tui.engine.ops.project import available

    how, kind, device, rows = plan(decoder), type(decoder), str(chosen.device), len(chosen)
    known = how is not None or kind in (Beam, Contrastive)
    if not known or not device.startswith("cuda") or available() is not None:
        return None
    if kind is Beam:
        from edge_tui.engine.ops.triton.beam import FusedBeam

        return FusedBeam(device, width, rows, chosen=chosen, parent=parent)
    if how is None:
        from edge_tui.engine.ops.triton.contrast import FusedContrast

        return FusedContrast(device, width, rows, chosen=chosen)
    from edge_tui.engine.ops.triton.choose import Fused

    return Fused(how, device, width, rows, chosen=chosen)


class Proposing(Protocol):
    """What proposes tokens and checks them, as `edge_tui.decoders.base.Decoder` does."""

    def propose(self, out: Output, s: State, p: Params, rng: Rng, at: int, /) -> Tensor: ...

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng, /) -> Step: ...


def fused_lookahead(decoder: Decoder, device: str, width: int, rows: int, lookahead: int) -> Proposing | None:
    """As `fused_step`, for strategies that propose `lookahead` tokens a step."""
    from edge_tui.engine.ops.project import available

    own = ("init", "propose", "step", "accepts")
    if not isinstance(decoder, Speculative) or any(
        getattr(type(decoder), name) is not getattr(Speculative, name) for name in own
    ):
        return None
    if not device.startswith("cuda") or available() is not None:
        return None
    from edge_tui.engine.ops.triton.speculate import FusedSpeculative

    return FusedSpeculative(decoder, device, width, rows, lookahead)
