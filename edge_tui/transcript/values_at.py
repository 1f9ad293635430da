"""Reads the strategy of a transcript, and its parameters at a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import ParamError, numbers

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
