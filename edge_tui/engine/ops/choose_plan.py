"""Plans a fused step: which chains the kernels know, and what the kernels must compute."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_tui.decoders.auto import DO_SAMPLE, FILTERS, Auto
from edge_tui.decoders.base import Chain, Decoder, Edge, Filter, Needs, Stage, numbers
from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.greedy import Greedy
from edge_tui.decoders.penalties import Penalties
from edge_tui.decoders.registry.chain_text import ChainStrategy
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.decoders.temperature import ORDER, Temperature

EARLY_TEMPERATURE = 1
"""Number of the link that is the temperature before the filters: it follows the penalties in every plan."""
FIRST_CUT = 2
"""Number of the first filter's link."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Holds one filter of a plan: its edge, and the parameter's value at which everything stays."""

    edge: Edge
    neutral: float


@dataclass(frozen=True, slots=True)
class Middle:
    """Names the links that stay torch operations between the kernels, from `first` to before `last`."""

    chain: Chain
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Describes a chain after its penalties, as the kernels read it.

    Attributes:
        draws: True if it samples at all; else it takes the argmax.
        cuts: Filters, first to last. At most one looks at surprise, and it is the last; at most one adds
            nothing up.
        order: Name of the parameter that puts the temperature before (0) or after (1) the filters; None
            puts it before.
        switch: Name of the parameter that turns sampling on; None is always on.
        middle: The filters where one of them is no cut that the kernels know; then there are no cuts.
        combines: The strategy whose `logits` run in their place; its temperature comes after them.
    """

    draws: bool
    cuts: tuple[Cut, ...] = ()
    order: str | None = None
    switch: str | None = None
    middle: Middle | None = None
    combines: Decoder | None = None

    @property
    def late_temperature(self) -> int:
        """Number of the link that is the temperature after the filters, where there is one."""
        if self.combines is not None:
            return len(self.combines.before.links)
        return FIRST_CUT + len(self.cuts) if self.middle is None else self.middle.last

    @property
    def is_one_chain(self) -> bool:
        """True where no torch operations come between the kernels."""
        return self.middle is None and self.combines is None


def plan(decoder: Decoder) -> Plan | None:
    """Plans the fused step of a strategy; None if it cannot be fused."""
    if decoder.links_around:
        return None
    # Kernels repeat the step of these classes, which a subclass may change: so exact classes.
    kind = type(decoder)
    if kind is Greedy:
        return Plan(draws=False)
    if isinstance(decoder, Sampling) and kind is Sampling:
        return _plan_chain(decoder.before, 3, ORDER.name)
    if isinstance(decoder, ChainStrategy):
        return _plan_chain(decoder.before, len(decoder.before.links))
    if kind is Auto:
        cuts = _cuts(tuple(cls() for cls in FILTERS))
        return None if cuts is None else Plan(True, cuts, switch=DO_SAMPLE.name)
    return Plan(True, combines=decoder) if _only_combines(decoder) else None


def _only_combines(decoder: Decoder) -> bool:
    """Tells whether a strategy of ours adds `logits` alone to penalties before and the temperature after."""
    kind = type(decoder)
    rest = ("init", "constants", "final", "choose", "observe", "take", "step", "propose")
    return (
        is_own(kind)
        and kind.logits is not Decoder.logits
        and all(getattr(kind, name) is getattr(Decoder, name) for name in rest)
        and tuple(map(type, decoder.before.stages)) == (Penalties,)
        and tuple(map(type, decoder.after.stages)) == (Temperature,)
        and decoder.kind == "sample"
        and decoder.streams[0].name == "model"
        and not (decoder.columns or decoder.needs.history)
    )


def _plan_chain(chain: Chain, last: int, order: str | None = None) -> Plan | None:
    """Plans penalties, temperature, then the links before `last`; None if it is none of that, or learns."""
    links = chain.links[2:last]
    known = all(replace(link.stage.needs, counts=False) == Needs() for link in links)
    if tuple(map(type, chain.stages[:2])) != (Penalties, Temperature) or chain.learns or not known:
        return None
    filters = tuple(link.stage for link in links if link.number == 1 and isinstance(link.stage, Filter))
    cuts = _cuts(filters) if len(filters) == len(links) else None
    if cuts is not None:
        return Plan(True, cuts, order=order)
    # The first step of a user's file is inspected operation by operation, which kernels around it would hide.
    own = all(is_own(type(link.stage)) for link in links)
    return Plan(True, order=order, middle=Middle(chain, 2, last)) if own else None


def _cuts(filters: tuple[Filter, ...]) -> tuple[Cut, ...] | None:
    """Collects the filters' declarations; None if one has none, or the kernels lack the combination."""
    cuts = []
    for filter in filters:
        edge = _edge(filter)
        neutral = next((p.neutral for p in numbers(filter.params) if edge and p.name == edge.param), None)
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
    """Returns the filter's declaration.

    None if a subclass took it over from a parent and cuts otherwise, or if it learns or records its state.
    """
    kind = type(filter)
    closest = next(cls for cls in kind.__mro__ if "edge" in vars(cls) or "apply" in vars(cls))
    has_state = kind.observe is not Stage.observe or bool(filter.columns)
    return filter.edge if "edge" in vars(closest) and not has_state else None
