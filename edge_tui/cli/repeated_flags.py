"""Lets a flag be repeated before and after the command. Part of every start, so it imports nothing."""

from __future__ import annotations

import argparse
from typing import Any


class Append(argparse.Action):
    """Appends a repeated flag's value to a list, past `Namespace.__setattr__`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        vars(namespace)[self.dest] = [*vars(namespace).get(self.dest, ()), values]


class Namespace(argparse.Namespace):
    """Keeps both halves of a flag that is repeated before the command and after it.

    argparse parses what follows the command into a namespace of its own and copies that over this one. Lists
    are joined then, and the names of the flags before the command are kept in `before`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "command" and value is not None:
            vars(self)["before"] = tuple(each for each in vars(self) if each != name)
        earlier = vars(self).get(name)
        if isinstance(earlier, list) and isinstance(value, list):
            value = [*earlier, *value]
        super().__setattr__(name, value)
