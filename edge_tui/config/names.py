"""Finds strategies, their parameters and flags by name, and the known name nearest to a misspelt one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_tui.decoders.base import Decoder, Param

_FLAGS = {
    "decoder_folders": "--decoders",
    "history.keep": "--no-history",
    "models.name": "--model",
    "stream": "--no-stream",
}
_TABLE_FLAGS = {"parameters": "--set", "template": "--template"}


def flag_of(key: str) -> str:
    """The flag that sets a key."""
    plain = f"--{key.rpartition('.')[2].replace('_', '-')}"
    return _FLAGS.get(key) or _TABLE_FLAGS.get(key.partition(".")[0], plain)


def canonical(strategy: str) -> str:
    """A strategy's registry name; a name nobody knows stays as it is."""
    from edge_tui import decoders

    try:
        return decoders.find(strategy).name
    except decoders.UnknownStrategy:
        return strategy


def parameters_of(strategy: str) -> tuple[Param, ...]:
    """What can be set for a strategy; nothing for a name nobody knows."""
    from edge_tui import decoders

    try:
        return tuple(decoders.find(strategy).params)
    except decoders.UnknownStrategy:
        return ()


def declared(strategies: Iterable[Decoder]) -> dict[str, Param]:
    """The parameters of some strategies by name."""
    return {param.name: param for decoder in strategies for param in decoder.params}


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or a full stop when no known name is close."""
    known = list(known)
    # Someone who forgets the table writes only the last part.
    tails = {option.rpartition(".")[2]: option for option in known}
    close = difflib.get_close_matches(name, [*known, *tails], n=1, cutoff=0.6)
    return f'; did you mean "{tails.get(close[0], close[0])}"?' if close else "."
