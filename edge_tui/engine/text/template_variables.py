"""Checks and parses variables that a user hands to a chat template, such as `enable_thinking`.

A variable comes from config.toml, a flag, the sidebar or a request, and travels as JSON to the process that
renders, over HTTP and into the history. So a value is what JSON can say, and small. Loads no torch.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping
from math import isfinite

OWN = ("messages", "tools", "documents", "add_generation_prompt")
"""Names that every rendering sets itself."""
MOST = 32
"""Most variables of one request."""
CHARACTERS = 16_384
"""Most characters of all variables of a request, as JSON."""
DEPTH = 16
"""Deepest nesting of lists and tables in a value."""


def check(name: str, value: object) -> object:
    """Returns a variable's value as JSON knows it: tuples become lists.

    Raises:
        ValueError: no template could use it; the rest of a sentence that begins with the variable's name.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError("cannot be the name of a template variable: use letters, digits and _.")
    if name in OWN:
        raise ValueError("is set by edge-tui itself: leave it out.")
    checked = _plain(value, DEPTH)
    if len(json.dumps(checked)) > CHARACTERS:
        raise ValueError(f"is longer than {CHARACTERS:,} characters: shorten it.")
    return checked


def check_all(variables: Mapping[str, object]) -> dict[str, object]:
    """Returns variables by name, each as `check` leaves it.

    Raises:
        ValueError: one of them, or all together, cannot be used; a whole sentence.
    """
    if len(variables) > MOST:
        raise ValueError(
            f"{len(variables)} template variables were given; {MOST} is the most: leave some out."
        )
    checked = {}
    for name, value in variables.items():
        try:
            checked[name] = check(name, value)
        except ValueError as error:
            raise ValueError(f"{name[:60]!r} {error}") from error
    if len(json.dumps(checked)) > CHARACTERS:
        raise ValueError(f"The template variables are longer than {CHARACTERS:,} characters: shorten them.")
    return checked


def parse(text: str) -> object:
    """Reads a value in JSON's or TOML's syntax: `false`, `3`, `"high"`, `["a", "b"]`.

    Raises:
        ValueError: it is neither; the rest of a sentence about the variable.
    """
    import tomli

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        table = tomli.loads(f"value = {text}")
    except (tomli.TOMLDecodeError, RecursionError, ValueError):
        table = {}
    if set(table) != {"value"}:
        raise ValueError(
            f'must be a value as in TOML or JSON (false, 3, "text" with its quotes), not {text[:60]!r}.'
        )
    return table["value"]


def assignment(pair: str) -> tuple[str, object]:
    """Reads `NAME=VALUE` into a name and a checked value.

    Raises:
        ValueError: a whole sentence.
    """
    name, equals, text = pair.partition("=")
    name = name.strip()
    if not equals:
        raise ValueError(
            f"A template variable is NAME=VALUE, for example enable_thinking=false, not {pair[:60]!r}."
        )
    try:
        return name, check(name, parse(text.strip()))
    except ValueError as error:
        raise ValueError(f"{name[:60]!r} {error}") from error


def assignments(text: str) -> dict[str, object]:
    """Reads assignments that are separated by spaces, as `write_assignments` writes them.

    Raises:
        ValueError: a whole sentence.
    """
    # A name and "=" begin the next one; inside a value they stand in quotes or brackets.
    found: dict[str, object] = {}
    pieces, assignment_text = text.split(" "), ""
    for position, piece in enumerate(pieces):
        assignment_text = f"{assignment_text} {piece}" if assignment_text else piece
        if not assignment_text:
            continue
        try:
            name, value = assignment(assignment_text)
        except ValueError:
            if position == len(pieces) - 1:
                raise
            continue
        found[name], assignment_text = value, ""
    return found


def write_assignments(variables: Mapping[str, object]) -> str:
    """Writes variables on one line, `name=value` with JSON values, as `assignment` reads each."""
    return " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in variables.items())


def _plain(value: object, depth: int) -> object:
    if not depth:
        raise ValueError(f"is nested more than {DEPTH} deep: make it flatter.")
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("must be a number that is finite.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"must be true, false, a number, a text, a list or a table, not {str(value)[:60]!r}.")
