"""Keeps the rules of style sheets that were parsed: each app of a test would parse the same again."""

from __future__ import annotations

from typing import Any

from textual.css import stylesheet
from textual.css.model import RuleSet

_parse = stylesheet.parse
_rules: dict[tuple[Any, ...], list[RuleSet]] = {}
_themes: dict[int, tuple[Any, str]] = {}


def parse(*given: Any, variable_tokens: Any = None, **options: Any) -> list[RuleSet]:
    """Gives the rules of a sheet under a theme's variables; Textual reads rules and changes none."""
    key = *given, _theme(variable_tokens), *sorted(options.items())
    if key not in _rules:
        _rules[key] = list(_parse(*given, variable_tokens=variable_tokens, **options))
    return _rules[key]


def _theme(variables: Any) -> str:
    """Writes variables down, once for each app's dictionary of them."""
    known, text = _themes.get(id(variables), (None, ""))
    if known is not variables:
        text = str(variables)
        _themes.clear()  # an id may come again when its dictionary is gone
        _themes[id(variables)] = variables, text
    return text
