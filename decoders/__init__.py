"""Finds decoding strategies: `find("top_p")` returns one, `strategies()` lists them.

A strategy is a file of this folder, of an installed package that announces itself under the entry points
`edge_tui.decoders`, or of the user's folder. Users and the API say "strategy"; its class is `Decoder`.
Importing this package, finding strategies and reading their parameters loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.errors import Problem, StrategyError
from edge_tui.decoders.registry.registry import Registry, UnknownStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edge_tui.decoders.base import Decoder

__all__ = [
    "Problem",
    "Registry",
    "StrategyError",
    "UnknownStrategy",
    "current",
    "find",
    "load",
    "reload",
    "strategies",
]

_current: Registry | None = None


def load(extra_folders: Sequence[Path] = ()) -> Registry:
    """Searches for every strategy anew; `find` and `strategies` read the result."""
    global _current
    _current = Registry.load(extra_folders, _current)
    return _current


def reload() -> Registry:
    """Searches the same folders anew; a file that no longer works keeps the strategies it had."""
    return load(current().folders)


def current() -> Registry:
    """Returns the result of the last search."""
    return _current or load()


def find(name: str) -> Decoder:
    """Returns the strategy of that name or alias, hyphens and case aside.

    Raises:
        UnknownStrategy: with the names there are.
    """
    return current().find(name)


def strategies() -> list[Decoder]:
    """Lists every strategy, in the order of lists and digit keys."""
    return current().strategies()
