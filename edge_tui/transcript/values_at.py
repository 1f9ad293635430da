"""Reads the strategy of a transcript, its parameters at a token, and the titles of its stages there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import ParamError, numbers
from edge_tui.decoders.registry.description import stage_title
from edge_tui.decoders.temperature import GREEDY_BELOW, TEMPERATURE
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from edge_tui.decoders.base import Decoder
    from edge_tui.transcript.transcript import Transcript


def strategy_of(transcript: Transcript) -> Decoder | None:
    """Finds the strategy of a run; None where this machine has none of that name."""
    try:
        return decoders.find(transcript.started.strategy)
    except decoders.UnknownStrategy:
        return None


def values_at(transcript: Transcript, index: int) -> dict[str, float]:
    """Reads the parameters that a token was chosen with, as numbers; unknown ones are left out."""
    decoder = strategy_of(transcript)
    found: dict[str, float] = {}
    for param in numbers(decoder.params) if decoder is not None else ():
        resolved = transcript.started.values.get(param.name)
        try:
            found[param.name] = param.parse(resolved.value) if resolved is not None else param.default
        except ParamError:
            continue
    return found | {change.name: change.value for change in transcript.changes if change.index <= index}


def draws_at(transcript: Transcript, index: int) -> bool:
    """Tells whether luck had a part in a token, by the strategy's kind and its parameters there.

    A strategy that this machine has not may have drawn.
    """
    decoder = strategy_of(transcript)
    if decoder is None:
        return True
    values = values_at(transcript, index)
    greedy = any(values.get(param.name) == param.greedy for param in numbers(decoder.params))
    cold = values.get(TEMPERATURE.name, 1.0) < GREEDY_BELOW
    return decoder.draws(values) and not greedy and not cold


def remover_at(transcript: Transcript, number: int, index: int) -> str:
    """Names the stage of a number in the records; "" for a strategy's own part, and a stage that is gone."""
    decoder = strategy_of(transcript)
    links = (*decoder.before.links, *decoder.after.links) if decoder is not None else ()
    if not 0 <= number < len(links):
        return ""
    return one_line(stage_title(links[number], values_at(transcript, index)))
