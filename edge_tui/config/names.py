"""Finds strategies, parameters and flags by name, and the known name nearest to a misspelt one."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING

from edge_tui import decoders

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_tui.decoders.base import AnyParam, Decoder, Stage

_FLAGS = {
    "decoder_folders": "--decoders",
    "history.keep": "--no-history",
    "models.name": "--model",
    "stream": "--no-stream",
}
_TABLE_FLAGS = {"parameters": "--set", "template": "--template"}


def flag_of(key: str) -> str:
    """Returns the flag that sets a key."""
    plain = f"--{key.rpartition('.')[2].replace('_', '-')}"
    return _FLAGS.get(key) or _TABLE_FLAGS.get(key.partition(".")[0], plain)


def find(strategy: str) -> Decoder | None:
    """Finds a strategy by any of its names; None for an unknown one."""
    try:
        return decoders.find(strategy)
    except decoders.UnknownStrategy:
        return None


def with_chains(names: Iterable[str]) -> list[Decoder]:
    """Lists every strategy, then the typed chains among some names."""
    listed = decoders.strategies()
    named = (find(name) for name in names if name)
    return [*listed, *dict.fromkeys(each for each in named if each is not None and each not in listed)]


def parameters_by_name(strategies: Iterable[Decoder]) -> dict[str, AnyParam]:
    """Returns the parameters of some strategies by name."""
    return {param.name: param for decoder in strategies for param in decoder.params}


def declarations(strategy: str = "") -> dict[str, list[AnyParam]]:
    """Returns by name how strategies and stages declare each parameter, the named strategy first."""
    named = find(strategy) if strategy else None
    owners: list[Decoder | Stage] = [named] if named is not None else []
    owners += [*decoders.strategies(), *decoders.current().stages()]
    found: dict[str, list[AnyParam]] = {}
    for param in (param for owner in owners for param in owner.params):
        if param not in found.setdefault(param.name, []):
            found[param.name].append(param)
    return found


def known_parameters(strategy: str = "") -> dict[str, AnyParam]:
    """Returns the parameters of all strategies and stages by name, and those of a typed chain."""
    return {name: declared[0] for name, declared in declarations(strategy).items()}


_MANY = 6
"""Strategies with a parameter, from which on it stands in `[parameters]` for all of them."""


def shared_parameters() -> dict[str, AnyParam]:
    """Returns the parameters that many strategies declare alike: temperature, penalties, but not beams."""
    counted = Counter(param for decoder in decoders.strategies() for param in decoder.params)
    return {param.name: param for param, count in counted.items() if count >= _MANY}


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean "x"?`, or a full stop when no known name is close."""
    known = list(known)
    # Someone who forgets the table writes only the last part.
    tails = {option.rpartition(".")[2]: option for option in known}
    close = difflib.get_close_matches(name, [*known, *tails], n=1, cutoff=0.6)
    return f'; did you mean "{tails.get(close[0], close[0])}"?' if close else "."
