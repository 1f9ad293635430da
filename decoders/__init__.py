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
    "find",
    "folders",
    "is_strategy_file",
    "load",
    "mark_working",
    "notices",
    "problems",
    "reload",
    "revert",
    "strategies",
]

_registry: Registry | None = None
_folders: tuple[Path, ...] = ()


def load(extra_folders: Sequence[Path] = ()) -> Registry:
    """Searches for every strategy anew; `find` and `strategies` read the result."""
    global _registry, _folders
    _folders = tuple(folder.absolute() for folder in extra_folders)
    _registry = Registry.load(_folders, _registry)
    return _registry


def reload() -> Registry:
    """Searches the same folders anew; a file that no longer works keeps the strategies it had."""
    global _registry
    _registry = Registry.load(_folders, _registry)
    return _registry


def folders() -> tuple[Path, ...]:
    """Lists the folders of strategies of the last `load`."""
    return _folders


def find(name: str) -> Decoder:
    """Returns the strategy of that name or alias, hyphens and case aside.

    Raises:
        UnknownStrategy: with the names there are.
    """
    return (_registry or load()).find(name)


def strategies() -> list[Decoder]:
    """Lists every strategy, in the order of lists and digit keys."""
    return (_registry or load()).strategies()


def problems() -> tuple[Problem, ...]:
    """Lists the errors of files and packages that are no strategies for them."""
    return tuple((_registry or load()).problems)


def notices() -> tuple[str, ...]:
    """Lists sentences for authors of strategies whose files work, but will not for ever."""
    return tuple((_registry or load()).notices)


def is_strategy_file(file: str) -> bool:
    """Tells whether strategies from outside this package were read from a file or its folder."""
    return (_registry or load()).is_strategy_file(file)


def mark_working(decoder: Decoder) -> None:
    """Notes that a strategy has decoded something."""
    (_registry or load()).mark_working(decoder)


def revert(failed: Decoder) -> bool:
    """Goes back from a strategy to its version that last decoded something, if that is another one."""
    return (_registry or load()).revert(failed)
