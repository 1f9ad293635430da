"""Describes strategies to lists and to the editor of chains, by what their classes are. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.chain import Link
from edge_tui.decoders.core.decoder import Decoder
from edge_tui.decoders.core.stage import Filter
from edge_tui.decoders.core.texts import numbers
from edge_tui.decoders.temperature import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.decoders.base import Stage, Value

GROUPS = ("sampling", "penalties", "two streams", "hidden states", "search", "proposals")
"""Headings of the list of strategies, in its order."""
_STEP = ("constants", "init", "prompts", "logits", "final", "choose", "observe", "take", "step", "propose")
"""Methods of a decoder that decide a token or follow it."""


def group_of(decoder: Decoder) -> str:
    """Returns the heading of `GROUPS` that a strategy stands under."""
    if decoder.needs.layers or type(decoder).needs_of is not Decoder.needs_of:
        return "hidden states"
    if decoder.kind != "sample":
        return "search" if decoder.kind == "search" else "proposals"
    if len(decoder.streams) > 1:
        return "two streams"
    own = getattr(decoder, "filter", None)
    return "penalties" if isinstance(own, Filter) and own.penalty else "sampling"


def is_chain(decoder: Decoder) -> bool:
    """Tells whether a strategy draws from what its stages leave and does nothing else, as `a+b` does."""
    plain = all(getattr(type(decoder), name) is getattr(Decoder, name) for name in _STEP)
    named = all(link.stage.name for link in (*decoder.before.links, *decoder.after.links))
    return plain and named and len(decoder.streams) == 1 and not decoder.owns_eos


def acting_links(decoder: Decoder, values: Mapping[str, Value]) -> tuple[tuple[Link, ...], tuple[Link, ...]]:
    """Lists the stages before and after what a strategy's class adds, those left out that `order` leaves out.

    Args:
        decoder: The strategy.
        values: Its parameters by name.
    """

    def acts(link: Link) -> bool:
        stage = link.stage
        return not isinstance(stage, Temperature) or stage.order in (None, values.get("order", 0))

    before, after = (tuple(filter(acts, chain.links)) for chain in (decoder.before, decoder.after))
    return before, after


def is_off(link: Link, values: Mapping[str, Value]) -> bool:
    """Tells whether the values of a stage's parameters are those at which it does nothing."""
    neutral = [param for param in link.params if param.neutral is not None]
    return bool(neutral) and all(values.get(param.name) == param.neutral for param in neutral)


def title_of(stage: Stage) -> str:
    """Returns a stage's name for readers."""
    return stage.title if isinstance(stage, Filter) else stage.name.replace("_", " ")


def stage_title(link: Link, values: Mapping[str, float]) -> str:
    """Writes a stage's title with the values of its parameters: "top-p 0.9".

    Args:
        link: The stage.
        values: Its parameters by name.
    """
    title = title_of(link.stage) + (f" #{link.number}" if link.number > 1 else "")
    params = [param for param in numbers(link.params) if param.name in values]
    if len(params) == 1 == len(link.params):
        return f"{title} {params[0].text(values[params[0].name])}"
    own = f"{link.stage.name.replace('_', ' ')} "
    shown = [
        f"{param.title.removeprefix(own)} {param.text(values[param.name])}"
        for param in params
        if values[param.name] != param.neutral
    ]
    return f"{title} {', '.join(shown)}".strip()


def summary_of(stage: Stage) -> str:
    """Returns one sentence about a stage."""
    if isinstance(stage, Filter):
        return stage.summary
    return (type(stage).__doc__ or "").strip().partition("\n")[0]


def is_fixed(link: Link) -> bool:
    """Tells whether a parameter of a stage cannot change while a run goes on."""
    return any(not param.live for param in link.params)
