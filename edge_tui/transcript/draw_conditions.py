"""Tells whether two runs drew with the same luck from numbers that compare alike.

They do where prompt, model, key and step are the same, both draw from the main model's numbers, and the
stages that reshape those have equal values. What the runs were asked for is looked at first, then the
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isnan
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, numbers
from edge_tui.decoders.registry.description import acting_links, is_off, stage_title, title_of
from edge_tui.transcript.values_at import draws_at, remover_at, strategy_of, values_at
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from edge_tui.decoders.base import Link
    from edge_tui.engine.events import Loaded
    from edge_tui.engine.explanation import Explanation
    from edge_tui.engine.port import Request
    from edge_tui.transcript.token_table import TokenView
    from edge_tui.transcript.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Side:
    """Holds one of two runs that are compared.

    Attributes:
        request: The request.
        transcript: Its tokens.
        models: Models by role, the main one first; empty where they are not known.
        why: Why it took its token at the parting; None while that is not known.
    """

    request: Request
    transcript: Transcript
    models: Mapping[str, Loaded] = field(default_factory=dict)
    why: Explanation | None = None

    @property
    def title(self) -> str:
        """The title of its strategy."""
        decoder = strategy_of(self.transcript)
        return one_line(decoder.title if decoder is not None else self.transcript.started.strategy)


def failed_condition(one: Side, other: Side, index: int) -> str:
    """Names the first condition that does not hold, by what the runs were asked for; "" if all do."""
    if _prompt(one.request) != _prompt(other.request):
        return "the prompts are not the same"
    if one.models and other.models and _main(one) != _main(other):
        return "the models are not the same, or not their precision or device"
    seeds = one.transcript.started.seed, other.transcript.started.seed
    if seeds[0] != seeds[1]:
        return f"the seeds are {seeds[0]} and {seeds[1]}"
    if any(index < side.transcript.started.prefix_tokens for side in (one, other)):
        return f"#{index:,} was kept from an earlier run, or put there by hand"
    for side in (one, other):
        if reason := _own_way(side, index):
            return f"{side.title} {reason}"
    return _other_values(one, other, index)


def _prompt(request: Request) -> tuple[object, ...]:
    return request.prompt, request.ids, request.system, request.chat, dict(request.template)


def _main(side: Side) -> tuple[str, str, str]:
    """Identifies the numbers of the main model."""
    main = next(iter(side.models.values()))
    return main.name, main.precision, main.device


def _own_way(side: Side, index: int) -> str:
    """Says how a strategy chooses where it does not draw from the main model's own numbers; else ""."""
    decoder = strategy_of(side.transcript)
    if decoder is None:
        return "is no strategy here any more"
    if decoder.kind != "sample":
        return "keeps several hypotheses" if decoder.kind == "search" else "checks proposals"
    if len(decoder.streams) > 1 or type(decoder).logits is not Decoder.logits:
        return "makes numbers of its own"
    if not draws_at(side.transcript, index):
        return "draws nothing"
    own = type(decoder).step is not Decoder.step or type(decoder).choose is not Decoder.choose
    return "chooses in its own way" if own else ""


def _other_values(one: Side, other: Side, index: int) -> str:
    """Names a value of a stage that reshapes, or a stage, in which two runs differ; else ""."""
    here, there = (_reshaping(side, index) for side in (one, other))
    for stage in here:
        for name, value in here[stage].items() if stage in there else ():
            if value != there[stage][name]:
                return f"{name} is {value} and {there[stage][name]}"
    for side, stages in ((one, here.keys() - there), (other, there.keys() - here)):
        decoder, values = strategy_of(side.transcript), values_at(side.transcript, index)
        acting = [title_of(link.stage) for link in _acting(decoder, values)] if decoder is not None else []
        if alone := [title for title in acting if title in stages]:
            return f"{alone[0]} acts in {side.title} alone"
    return ""


def _reshaping(side: Side, index: int) -> dict[str, dict[str, str]]:
    """Lists the stages of a run that reshape, neutral ones too, each with its values as readers see them."""
    decoder, values = strategy_of(side.transcript), values_at(side.transcript, index)
    links = acting_links(decoder, values) if decoder is not None else ()
    return {
        title_of(link.stage): {
            one_line(param.title): param.text(values[param.name])
            for param in numbers(link.params)
            if param.name in values
        }
        for chain in links
        for link in chain
        if link.stage.reshapes
    }


def _acting(decoder: Decoder, values: Mapping[str, float]) -> list[Link]:
    """Lists the stages whose values let them do something."""
    before, after = acting_links(decoder, values)
    return [link for link in (*before, *after) if not is_off(link, values)]


def numbers_differ(one: Side, other: Side, tokens: tuple[TokenView, TokenView]) -> str:
    """Says that the numbers that were drawn from do not compare alike, by the numbers themselves; else ""."""
    limit = max(_tolerance(one), _tolerance(other))
    raw = [{each.id: each.logp for each in token.top} for token in tokens]
    if _spread(*raw, centred=False) > limit:
        return "the model's own numbers are not the same"
    final = [
        {each.id: each.logp for each in token.final if each.logp > -inf}
        if side.why is None
        else {each.id: each.sum - each.luck for each in side.why.candidates if each.sum > -inf}
        for side, token in zip((one, other), tokens, strict=True)
    ]
    if _spread(*final, centred=True) > limit:
        return f"{one.title} and {other.title} do not reshape them alike"
    return ""


def _spread(one: Mapping[int, float], other: Mapping[int, float], *, centred: bool) -> float:
    """Measures how far apart two sets of numbers are where both have one; `centred` allows a constant."""
    gaps = [gap for id in one.keys() & other.keys() if not isnan(gap := one[id] - other[id])]
    if not gaps:
        return 0.0
    return max(gaps) - min(gaps) if centred else max(map(abs, gaps))


def _tolerance(side: Side) -> float:
    """Nats by which the same numbers may differ in two runs: a prompt is read in other pieces."""
    main = next(iter(side.models.values()), None)
    return 0.002 if main is not None and main.dtype == "float32" else 0.15


def cutter_of(side: Side, index: int) -> str:
    """Names the stage of a side that removes tokens; where it has several, the strategy."""
    decoder, values = strategy_of(side.transcript), values_at(side.transcript, index)
    if decoder is None:
        return side.title
    found = [stage_title(link, values) for link in _acting(decoder, values) if not link.stage.reshapes]
    return one_line(found[0]) if len(found) == 1 else side.title


def stage_of(side: Side, number: int, index: int) -> str:
    """Names the stage of a side that has a number in the records; the strategy for its own part."""
    return remover_at(side.transcript, number, index) or side.title
