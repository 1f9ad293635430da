"""Plans a fused step: which links of a strategy the kernels do, and which stay torch operations between them.

A plan is read off the links and what they declare. The kernels know the penalties and the temperature, one
number after another, and at the end of a chain filters that declare an `Edge`, the last temperature and the
draw. Everything else runs between them. Links at their neutral values are left out before a plan is made, so
that a chain of them has the plan of a plain draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_tui.decoders.auto import DO_SAMPLE, Auto
from edge_tui.decoders.base import Chain, Decoder, Edge, Filter, Link, Stage, numbers
from edge_tui.decoders.core import step_log
from edge_tui.decoders.core.best import argmax, only
from edge_tui.decoders.core.chain import is_idle
from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.core.output import last_logits
from edge_tui.decoders.greedy import Greedy
from edge_tui.decoders.penalties import Penalties
from edge_tui.decoders.temperature import ORDER, Temperature

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Output, Param, Params, State
    from edge_tui.decoders.core.random import Rng

MAIN = "model"
"""The stream whose logits the kernels read."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Holds one filter of a plan: its edge, and the parameter's value at which everything stays."""

    edge: Edge
    neutral: float


@dataclass(frozen=True, slots=True)
class Links:
    """Runs some links of one chain, from `first` to before `last`, as torch operations."""

    chain: Chain
    first: int
    last: int

    def run(self, z: Tensor, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Tensor:
        """Maps logits float32 `[R, V]` to logits; must not write to them. Arguments: as of `Decoder.step`."""
        return self.chain.apply_links(z, p, s, rng, self.first, self.last)


@dataclass(frozen=True, slots=True)
class Logits:
    """Runs a strategy's own `logits`, which make one distribution of all streams.

    Attributes:
        decoder: The strategy.
        after_links: True where links before it may have taken a row's last candidate.
    """

    decoder: Decoder
    after_links: bool

    def run(self, z: Tensor, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Tensor:
        """Does `Links.run`."""
        if self.after_links:
            raw = last_logits(outs[MAIN], s)
            z = only(raw, argmax(raw)).where(z.amax(-1, keepdim=True) == -float("inf"), z)
        return self.decoder.logits({**outs, MAIN: replace(outs[MAIN], logits=z[:, None])}, s, p)


@dataclass(frozen=True, slots=True)
class Pass:
    """Describes one kernel over the logits, and the torch operations between it and the next one.

    Attributes:
        penalties: True where it applies the penalties.
        temperature: True where it divides by the early temperature, after the penalties.
        parts: The torch operations that follow.
    """

    penalties: bool = False
    temperature: bool = False
    parts: tuple[Links | Logits, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Describes a step as the kernels read it: passes over the logits, cuts, a temperature, and the draw.

    Attributes:
        draws: True if it samples at all; else it takes the argmax.
        passes: First to last, at least one.
        cuts: Filters, first to last. At most one looks at surprise, and it is the last; at most one adds
            nothing up.
        early: Name of the temperature that a pass divides by. What follows it leaves a row's only candidate
            alone, so that a row at temperature 0 is decided there.
        late: Name of the temperature behind the cuts.
        order: Name of the parameter that lets one of the two act, the early one at 0; None lets both.
        switch: Name of the parameter that turns sampling on; None is always on.
        numbers: The record's numbers of the links: the early temperature, the late one, then the cuts.
    """

    draws: bool
    passes: tuple[Pass, ...] = (Pass(),)
    cuts: tuple[Cut, ...] = ()
    early: str | None = None
    late: str | None = None
    order: str | None = None
    switch: str | None = None
    numbers: tuple[int, ...] = field(default=(step_log.OWN, step_log.OWN), compare=False)

    @property
    def parts(self) -> tuple[Links | Logits, ...]:
        """All torch operations, first to last."""
        return tuple(part for each in self.passes for part in each.parts)


@dataclass(frozen=True, slots=True)
class _Place:
    """Holds a link with its number in the record and its place in its chain; no link stands for `logits`."""

    number: int
    chain: Chain
    index: int
    link: Link | None = None

    @property
    def kind(self) -> type[Stage] | None:
        """The class of the link's stage."""
        return None if self.link is None else type(self.link.stage)

    @property
    def is_penalties(self) -> bool:
        """True for the penalties that the kernels know."""
        return self.link is not None and self.kind is Penalties and self.link.number == 1

    def is_temperature(self, order: int) -> bool:
        """Tells whether it is a temperature that acts always, or at this place of the order."""
        stage = None if self.link is None else self.link.stage
        return type(stage) is Temperature and stage.order in (None, order)

    @property
    def may_run_between(self) -> bool:
        """True for what is ours."""
        return self.kind is None or is_own(self.kind)

    @property
    def may_bar(self) -> bool:
        """True for what may remove a row's only candidate, as no filter does that looks at logits alone."""
        return self.link is None or (self.link.stage.penalty and self.kind is not Penalties)


def plan(decoder: Decoder, left_out: Collection[int] = ()) -> Plan | None:
    """Plans the fused step of a strategy.

    Args:
        decoder: The strategy.
        left_out: Numbers of the links that are at their neutral values.

    Returns:
        None where it does not draw from what its links leave, or where a link that is not ours would run
        between the kernels: its first step is inspected operation by operation, which they would hide.
    """
    # Kernels repeat the step of these classes, which a subclass may change: so exact classes.
    kind = type(decoder)
    if kind is Greedy and not decoder.links_around:
        return Plan(draws=False, passes=(Pass(penalties=True),))
    if kind is not Auto and not _only_combines(decoder):
        return None
    found = _plan_links(_places(decoder, left_out), decoder)
    if found is None or kind is not Auto:
        return found
    # Without sampling a row is decided in front of its second chain, which begins with the temperature.
    return replace(found, switch=DO_SAMPLE.name) if found.early is not None else None


def idle_links(decoder: Decoder, values: Mapping[str, float]) -> frozenset[int]:
    """Lists the links that a step leaves out: ours, at the neutral values of their parameters.

    Penalties and temperatures stay where the kernels do them, which costs nothing: so one may be turned
    while a run goes on, and no other step is needed.

    Args:
        decoder: The strategy.
        values: The parameters as the step uses them.
    """
    links = dict(enumerate((*decoder.before.links, *decoder.after.links)))

    def is_neutral(param: Param) -> bool:
        return values[param.name] == param.neutral

    neutral = {
        n
        for n, link in links.items()
        if is_own(type(link.stage)) and is_idle(link.stage, link.params, is_neutral)
    }
    idle = {n for n in neutral if type(links[n].stage) not in (Penalties, Temperature)}
    how = plan(decoder, idle)
    between = [part for part in how.parts if isinstance(part, Links)] if how is not None else []
    for part in between:
        first = 0 if part.chain is decoder.before else len(decoder.before.links)
        idle |= neutral.intersection(range(first + part.first, first + part.last))
    return frozenset(idle)


def _only_combines(decoder: Decoder) -> bool:
    """Tells whether a strategy of ours draws from what its links leave, and adds `logits` alone to them."""
    kind = type(decoder)
    rest = ("init", "constants", "final", "choose", "observe", "take", "step", "propose")
    return (
        is_own(kind)
        and all(getattr(kind, name) is getattr(Decoder, name) for name in rest)
        and decoder.kind == "sample"
        and decoder.streams[0].name == MAIN
        and not (decoder.columns or decoder.needs.history)
    )


def _places(decoder: Decoder, left_out: Collection[int]) -> list[_Place]:
    """Lists what a step does in order, but for what is left out."""
    before, after = decoder.before, decoder.after
    places = [_Place(n, before, n, link) for n, link in enumerate(before.links)]
    if type(decoder).logits is not Decoder.logits:
        places.append(_Place(step_log.OWN, before, len(places)))
    first = len(before.links)
    places += [_Place(first + n, after, n, link) for n, link in enumerate(after.links)]
    return [place for place in places if place.number not in left_out]


def _plan_links(places: Sequence[_Place], decoder: Decoder) -> Plan | None:
    """Divides what a step does among the kernels and torch operations."""
    head, cuts, late = _split(places)
    if not all(place.may_run_between for place in head):
        return None
    passes, early = [Pass()], None
    for index, place in enumerate(head):
        last = passes[-1]
        if place.is_penalties:
            is_free = last == Pass()
            passes[-1:] = [Pass(penalties=True)] if is_free else [last, Pass(penalties=True)]
        elif early is None and _may_be_early(place, head[index + 1 :]):
            early = place
            passes[-1:] = [last, Pass(temperature=True)] if last.parts else [replace(last, temperature=True)]
        else:
            passes[-1] = replace(last, parts=_add(last.parts, place, decoder, head[:index]))
    if late is not None and early is None and not cuts and not passes[-1].parts:
        passes[-1], early, late = replace(passes[-1], temperature=True), late, None
    if cuts and passes[-1].parts:
        passes.append(Pass())  # cuts need the greatest logit
    ordered = any(
        isinstance(place.link.stage, Temperature) and place.link.stage.order is not None
        for place in places
        if place.link is not None
    )
    return Plan(
        draws=True,
        passes=tuple(passes),
        cuts=tuple(cut for place in cuts if (cut := _cut_of(place)) is not None),
        early=_name(early),
        late=_name(late),
        order=ORDER.name if ordered else None,
        numbers=(_number(early), _number(late), *(place.number for place in cuts)),
    )


def _name(temperature: _Place | None) -> str | None:
    """Names the parameter of a temperature, under the name that it has in its chain."""
    return None if temperature is None or temperature.link is None else temperature.link.params[0].name


def _number(place: _Place | None) -> int:
    return step_log.OWN if place is None else place.number


def _split(places: Sequence[_Place]) -> tuple[Sequence[_Place], Sequence[_Place], _Place | None]:
    """Splits off the end of a step: the most cuts in a row, and a temperature behind them."""
    late = places[-1] if places and places[-1].is_temperature(1) else None
    end = len(places) - (late is not None)
    start = end
    while start and _are_cuts(places[start - 1 : end]):
        start -= 1
    return places[:start], places[start:end], late


def _may_be_early(place: _Place, rest: Sequence[_Place]) -> bool:
    """Tells whether a temperature of 0 decides a row for good: nothing after it bars what it has left."""
    return place.is_temperature(0) and not any(each.may_bar for each in rest)


def _add(
    parts: tuple[Links | Logits, ...], place: _Place, decoder: Decoder, before: Sequence[_Place]
) -> tuple[Links | Logits, ...]:
    """Adds a link, or `logits`, to torch operations."""
    if place.link is None:
        return (*parts, Logits(decoder, not all(each.is_penalties for each in before)))
    if parts and isinstance(last := parts[-1], Links) and last.chain is place.chain:
        return (*parts[:-1], replace(last, last=place.index + 1))
    return (*parts, Links(place.chain, place.index, place.index + 1))


def _are_cuts(places: Sequence[_Place]) -> bool:
    """Tells whether the kernels know links as cuts that follow one another."""
    cuts = [_cut_of(place) for place in places]
    edges = [cut.edge for cut in cuts if cut is not None]
    return (
        len(edges) == len(cuts)
        and not any(edge.key == "surprise" for edge in edges[:-1])
        and sum(edge.weight is None for edge in edges) <= 1
        and all(edge.weight == "mass" for edge in edges if edge.key == "surprise")
    )


def _cut_of(place: _Place) -> Cut | None:
    """Returns what a filter declares, under the names that its parameters have in the chain.

    None if it declares nothing, if a subclass took it over from a parent and cuts otherwise, or if it learns
    or records its state.
    """
    if (link := place.link) is None or not isinstance(stage := link.stage, Filter) or stage.edge is None:
        return None
    kind = type(stage)
    closest = next(cls for cls in kind.__mro__ if "edge" in vars(cls) or "apply" in vars(cls))
    if "edge" not in vars(closest) or kind.observe is not Stage.observe or stage.columns:
        return None
    for own, public in zip(numbers(stage.params), numbers(link.params), strict=True):
        if own.name == stage.edge.param and own.neutral is not None:
            return Cut(replace(stage.edge, param=public.name), own.neutral)
    return None
