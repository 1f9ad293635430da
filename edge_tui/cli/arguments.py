"""Extends argparse: flags that repeat before and after the command, and flags with a value in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


class Append(argparse.Action):
    """Appends a repeated flag's value to a list, past `Namespace.__setattr__`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        vars(namespace)[self.dest] = [*vars(namespace).get(self.dest, ()), values]


class Namespace(argparse.Namespace):
    """Joins both halves of a flag that is repeated before the command and after it.

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


def add_value(
    to: Any,
    flag: str,
    metavar: str,
    text: str,
    dest: str | None = None,
    kind: Callable[[str], Any] = str,
    **options: Any,
) -> None:
    """Adds a flag with a value; its key is its name unless `dest` is another."""
    to.add_argument(flag, metavar=metavar, help=text, dest=dest, type=kind, **options)
