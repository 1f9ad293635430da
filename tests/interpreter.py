"""Keeps Triton's interpreter from work whose result it throws away: more than half of a kernel's time."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any


def quicken() -> None:
    """Changes the interpreter, if anything has imported it.

    It looks through its whole language whenever a kernel calls a function, and computes each sum of integers
    again in 64 bits for an assertion that it makes only where it is debugged.
    """
    interpreter = sys.modules.get("triton.runtime.interpreter")
    if interpreter is not None:
        interpreter.inspect = SimpleNamespace(**{**vars(inspect), "getmembers": _builtins})  # type: ignore[attr-defined]
        builder = interpreter.interpreter_builder
        builder.options = replace(builder.options, sanitize_overflow=False)


def _builtins(place: Any) -> list[tuple[str, Any]]:
    """Gives the functions that are still to be replaced: all, or none inside a running kernel."""
    from triton.language.core import is_builtin

    names = _names(place)
    replaced = names and not is_builtin(getattr(place, names[0]))
    return [] if replaced else [(name, getattr(place, name)) for name in names]


@cache
def _names(place: Any) -> list[str]:
    """Lists the functions of a part of the language that the interpreter replaces."""
    from triton.language.core import is_builtin

    return [name for name, member in inspect.getmembers(place) if is_builtin(member)]
