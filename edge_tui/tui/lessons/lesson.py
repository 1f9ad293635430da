"""Reads lessons from TOML files: steps, each with the facts that must hold before the next one is shown.

A condition is a table of facts: `run = "greedy"` compares, `"ran.temperature" = ">= 1.5"` bounds a number.
`facts.py` lists the facts; `presses.py` reads from a condition which keys make it hold. A step with choices
is a question: it waits for the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import tomli

Fact = str | float | bool
Place = Literal["", "flat", "peaked"]

_BOUNDS = (">=", "<=")


@dataclass(frozen=True, slots=True)
class Choice:
    """Describes an answer to choose.

    Attributes:
        text: The answer, in a few words.
        why: A sentence: why it is wrong, or why it is right.
        right: True for the right one.
    """

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Describes one step.

    Attributes:
        text: Says what to do, and what to look at; or asks.
        done: Facts that must hold, all at once.
        go: The token that the cursor is put on when the step begins: the one whose distribution has the
            largest entropy, or the smallest; "" leaves it.
        walk: The action of the token pane by which the cursor gets to the token that the step asks for.
        path: Actions that open the screen that the step asks for, one after another.
        choices: Answers to choose from, if the step is a question.
    """

    text: str
    done: Mapping[str, Fact]
    go: Place = ""
    walk: str = "cursor_left"
    path: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()

    def missing(self, facts: Mapping[str, Fact]) -> list[str]:
        """Lists the facts that do not hold yet, in the order of the file."""
        return [name for name, wanted in self.done.items() if not holds(facts.get(name), wanted)]

    def choice(self, text: str) -> Choice | None:
        """Finds a choice by its text."""
        return next((choice for choice in self.choices if choice.text == text), None)


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
    return Lesson(key, table["title"], tuple(map(_step, table["steps"])), table["after"])


def _step(table: Mapping[str, Any]) -> Step:
    choices = tuple(Choice(**choice) for choice in table.get("choices", ()))
    answer = next((choice.text for choice in choices if choice.right), "")
    done = {"answer": answer} if choices else table["done"]
    path = tuple(table.get("path", ()))
    return Step(table["text"], done, table.get("go", ""), table.get("walk", "cursor_left"), path, choices)


def holds(fact: Fact | None, wanted: Fact) -> bool:
    """Tells whether a fact is the one that is wanted, or within its bound."""
    if not isinstance(wanted, str) or not wanted.startswith(_BOUNDS):
        return fact == wanted
    if not isinstance(fact, float | int):
        return False
    bound = float(wanted[2:])
    return fact >= bound if wanted.startswith(">=") else fact <= bound
