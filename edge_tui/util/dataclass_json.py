"""Builds dataclasses from parsed JSON, by their annotations."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def build(kind: type[T], data: Mapping[str, Any]) -> T:
    """Builds a dataclass from parsed JSON.

    Fields that this version does not know are left out, those that are missing take their defaults: histories
    and servers may be of other versions.

    Raises:
        TypeError: a value has another type than its field, or one without a default is missing.
    """
    hints = get_type_hints(kind)
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _fit(hints[name], value) for name, value in data.items() if name in names})


def _fit(hint: Any, value: Any) -> Any:
    """Converts a value to its annotation: JSON knows neither tuples nor dataclasses.

    Raises:
        TypeError: it is something else.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is object:
        return value
    if origin in (Union, UnionType):
        for part in parts:
            with suppress(TypeError):
                return _fit(part, value)
    elif origin is Literal and value in parts:
        return value
    elif origin is tuple and isinstance(value, list):
        kinds = (parts[0],) * len(value) if parts[-1] is ... else parts
        if len(kinds) == len(value):
            return tuple(map(_fit, kinds, value))
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _fit(parts[1], item) for key, item in value.items()}
    elif isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value)
    elif type(value) in ((float, int) if hint is float else (hint,)):
        return value
    raise TypeError(f"{value!r} is no {hint}")
