"""Reads lessons from TOML files: steps, each with the facts that must hold before the next one is shown.

A condition is a table of facts: `run = "greedy"` compares, `"ran.temperature" = ">= 1.5"` bounds a number.
`facts.py` lists the facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import tomli

Fact = str | float | bool
Place = Literal["", "flat", "peaked"]

_BOUNDS = (">=", "<=")


@dataclass(frozen=True, slots=True)
class Step:
    """Describes one step.

    Attributes:
        text: Says what to do, and what to look at.
        done: Facts that must hold, all at once.
        go: The token that the cursor is put on when the step begins: the one whose distribution has the
            largest entropy, or the smallest; "" leaves it.
    """

    text: str
    done: Mapping[str, Fact]
    go: Place = ""

    def missing(self, facts: Mapping[str, Fact]) -> str | None:
        """Returns the first fact that does not hold yet, None if all do."""
        return next((name for name, wanted in self.done.items() if not _holds(facts.get(name), wanted)), None)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Describes a lesson.

    Attributes:
        key: Names it in the file of progress.
        title: A question, or a sentence.
        steps: In order.
        after: Says what was seen, once all steps are done.
    """

    key: str
    title: str
    steps: tuple[Step, ...]
    after: str


@cache
def lessons() -> tuple[Lesson, ...]:
    """Returns all lessons in order."""
    folder = files("edge_tui.tui.lessons")
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda f: f.name)
    return tuple(_read(file.name.removesuffix(".toml"), file.read_text(encoding="utf-8")) for file in found)


def _read(key: str, text: str) -> Lesson:
    table = tomli.loads(text)
    steps = tuple(Step(step["text"], step["done"], step.get("go", "")) for step in table["steps"])
    return Lesson(key, table["title"], steps, table["after"])


def _holds(fact: Fact | None, wanted: Fact) -> bool:
    if not isinstance(wanted, str) or not wanted.startswith(_BOUNDS):
        return fact == wanted
    if not isinstance(fact, float | int):
        return False
    bound = float(wanted[2:])
    return fact >= bound if wanted.startswith(">=") else fact <= bound
